
// The page: an image and the name of what it shows go to /inspect, and what comes back is shown as it comes. Whatever the model says is put in as text, never as markup.
addEventListener('DOMContentLoaded', () => {
  const part = id => document.getElementById(id);
  const form = part('form');
  const drop = part('drop');
  const [image, object, adapter, threshold, references] = ['image', 'object', 'adapter', 'threshold', 'references'].map(part);
  const kept = 24; // inspections that the page remembers
  const recent = [];
  let chosen = null; // the file to inspect, with an address of its picture
  let running = null; // what stops the inspection that is going on

  class Refusal extends Error { }

  // A key that the server needs is the browser's business: it has asked for it before it showed the page. (An address with a key in it cannot be fetched from.)
  async function request(address, options) {
    let response;
    try {
      response = await fetch(new URL(address, location.origin + location.pathname), options);
    } catch (error) {
      throw error.name === 'AbortError' ? error : new Refusal('The server does not answer. Is it still running?');
    }
    if (response.ok) return response;
    let said = '';
    try { said = (await response.json()).error.message; } catch { /* not in the server's own form */ }
    throw new Refusal(said || `The server refused with ${response.status}.`);
  }

  // What is loaded.
  async function askModels() {
    try {
      const { data } = await (await request('v1/models')).json();
      const [base, ...others] = data.map(model => model.id);
      part('model').textContent = base + (others.length === 0 ? '' : others.length === 1 ? ' · 1 adapter' : ` · ${others.length} adapters`);
      adapter.append(...others.map(name => new Option(name, name)));
      part('adapters').hidden = others.length === 0;
    } catch (error) {
      part('model').textContent = error.message;
    }
  }

  function choose(file) {
    if (!file) return;
    chosen = { file, address: URL.createObjectURL(file) };
    showChosen();
    (object.value.trim() ? form.querySelector('.primary') : object).focus();
  }

  function showChosen() {
    const preview = part('preview');
    preview.hidden = false;
    preview.src = chosen.address;
    part('chosen').textContent = chosen.file.name || 'pasted image';
    part('ways').textContent = 'change';
    drop.classList.add('full');
    complain(image, '');
  }

  // What is missing is said, and the field of it marked and gone to.
  function complain(field, message) {
    field.toggleAttribute('aria-invalid', false);
    if (message) {
      field.setAttribute('aria-invalid', 'true');
      field.focus();
    }
    part('problem').textContent = message;
    return message !== '';
  }

  function isIncomplete() {
    for (const field of [image, object, threshold]) field.removeAttribute('aria-invalid');
    return complain(image, chosen ? '' : 'Choose an image first.')
      || complain(object, object.value.trim() ? '' : 'Name the object that the image shows.')
      || complain(threshold, threshold.value.trim() === '' || isFinite(threshold.value.replace(',', '.')) ? '' : 'The threshold is not a number.');
  }

  async function* lines(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ;) {
      const { value, done } = await reader.read();
      const whole = (rest + (value ?? '')).split('\n');
      rest = done ? '' : whole.pop();
      for (const line of whole) if (line) yield JSON.parse(line);
      if (done) return;
    }
  }

  async function inspect() {
    const item = { ...chosen, object: object.value.trim(), adapter: adapter.value, threshold: threshold.value.trim().replace(',', '.'), text: '', score: null, answer: null };
    const body = new FormData();
    body.append('image', item.file, item.file.name || 'image');
    body.append('object', item.object);
    body.append('stream', 'true');
    for (const file of references.files) body.append('references', file, file.name);
    if (item.adapter) body.append('adapter', item.adapter);
    if (item.threshold) body.append('threshold', item.threshold);
    running = new AbortController();
    setBusy(true);
    show(item);
    say('Inspecting.');
    if (matchMedia('(max-width: 820px)').matches) part('result').scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
    try {
      let spoken = 0;
      for await (const update of lines(await request('inspect', { method: 'POST', body, signal: running.signal }))) {
        if (update.error) throw new Refusal(update.error.message);
        if ('valid' in update) item.answer = update;
        item.score = update.pred_score ?? item.score;
        item.text += update.text ?? '';
        show(item);
        spoken = item.answer ? spoken : saySentences(reasoning(item.text), spoken);
      }
      if (!item.answer) throw new Refusal('The connection ended before the verdict.');
      remember(item);
      say(`${verdict(item)}, score ${figure(item.score)}. ${item.answer.explanation.slice(spoken).trim()}`);
    } catch (error) {
      item.failed = error.name === 'AbortError' ? 'Stopped' : 'Not inspected';
      show(item);
      if (error.name === 'AbortError') say('Stopped.');
      else part('problem').textContent = error.message;
    } finally {
      running = null;
      setBusy(false);
    }
  }

  function setBusy(busy) {
    const button = form.querySelector('.primary');
    button.setAttribute('aria-disabled', busy); // not disabled: it keeps the focus
    button.textContent = busy ? 'Inspecting …' : 'Inspect';
    part('stop').hidden = !busy;
    part('result').setAttribute('aria-busy', busy);
  }

  // Screen readers get whole sentences as they come.
  const say = text => { part('spoken').textContent = text; };
  function saySentences(text, from) {
    const end = Math.max(...['. ', '! ', '? ', '\n'].map(mark => text.lastIndexOf(mark)));
    if (end + 1 <= from) return from;
    say(text.slice(from, end + 1));
    return end + 1;
  }

  // What stands between the think tags, as far as it has come.
  function reasoning(text) {
    const begun = text.replace(/^\s*<think>\s*/, '');
    return /^\s*<[a-z]*$/.test(begun) ? '' : begun.replace(/<(\/(t(h(i(n(k(>[^]*)?)?)?)?)?)?)?$/, '').trimEnd();
  }

  const kind = ({ answer, failed }) => failed ? 'failed' : !answer ? 'running' : answer.pred_label === 1 ? 'defect' : answer.pred_label === 0 ? 'normal' : 'invalid';
  const verdict = item => item.failed ?? { running: 'Looking …', defect: 'Defect', normal: 'Normal', invalid: 'No valid answer' }[kind(item)];
  const figure = score => (score < 0 ? '−' : '+') + Math.abs(score).toFixed(2);
  const place = score => 0.5 + 0.5 * Math.tanh(score / 6); // on a scale without ends
  const describe = item => [item.object.replaceAll('_', ' '), item.file.name, item.adapter].filter(text => text).join(' · ');

  function show(item) {
    const { answer } = item;
    part('result').className = `result ${kind(item)}`;
    part('verdict').textContent = verdict(item);
    part('what').textContent = describe(item);
    part('score-line').hidden = item.score === null;
    if (item.score !== null) {
      part('score').textContent = figure(item.score);
      part('mark').style.setProperty('--at', place(item.score));
      part('limit').hidden = !item.threshold;
      part('limit').style.setProperty('--at', place(Number(item.threshold)));
    }
    part('problem').textContent = '';
    part('reason').textContent = answer ? answer.explanation : reasoning(item.text);
    part('reason').className = answer && !answer.valid ? 'reason whole' : 'reason';
    part('facts').textContent = answer ? facts(answer) : '';
  }

  function facts(answer) {
    const own = answer.threshold === null ? '' : `By its score: the threshold is ${answer.threshold}. The model’s own answer: ${{ 0: 'normal', 1: 'defect' }[answer.answer_label] ?? 'none that is valid'}. `;
    const against = answer.threshold === null && answer.valid && (answer.pred_label === 1) !== (answer.pred_score > 0) ? 'The score leans the other way. ' : '';
    const problem = answer.problem ? `Not in the required form: ${answer.problem}. ` : '';
    return `${own}${against}${problem}${answer.usage.prompt_tokens} tokens read, ${answer.usage.completion_tokens} written.`;
  }

  function remember(item) {
    recent.unshift(item);
    part('cards').prepend(card(item));
    for (const old of recent.splice(kept)) {
      part('cards').lastChild.remove();
      if (old.address !== chosen.address && recent.every(other => other.address !== old.address)) URL.revokeObjectURL(old.address);
    }
    part('history').hidden = false;
    if (![...part('objects').options].some(option => option.value === item.object)) part('objects').append(new Option(item.object, item.object));
  }

  function card(item) {
    const made = (name, className, text) => Object.assign(document.createElement(name), { className, textContent: text });
    const button = Object.assign(made('button', 'picture', ''), { type: 'button', title: 'bring this image back' });
    button.append(Object.assign(new Image(), { src: item.address, alt: `${item.object}, ${verdict(item)}` }));
    button.addEventListener('click', () => {
      if (running) return;
      chosen = { file: item.file, address: item.address };
      [object.value, threshold.value] = [item.object, item.threshold];
      adapter.value = item.adapter;
      showChosen();
      show(item);
      part('object').focus();
    });
    const reason = Object.assign(made('p', item.answer.valid ? 'reason' : 'reason whole', item.answer.explanation), { dir: 'auto' });
    const entry = made('li', `card ${kind(item)}`, '');
    entry.append(button, made('p', 'verdict', verdict(item)), made('p', 'score', figure(item.score)), made('p', 'what', describe(item)), reason);
    return entry;
  }

  image.addEventListener('change', () => choose(image.files[0]));
  for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    addEventListener(name, event => {
      event.preventDefault(); // a file dropped beside the place must not take the page's
      drop.classList.toggle('over', name !== 'drop' && name !== 'dragleave');
      if (name === 'drop') choose(event.dataTransfer.files[0]);
    });
  }
  addEventListener('paste', event => choose(event.clipboardData.files[0]));
  form.addEventListener('submit', event => {
    event.preventDefault();
    if (!running && !isIncomplete()) inspect();
  });
  part('stop').addEventListener('click', () => {
    running?.abort();
    form.querySelector('.primary').focus();
  });
  addEventListener('keydown', event => event.key === 'Escape' && running?.abort());
  part('result').classList.add('empty');
  askModels();
});
