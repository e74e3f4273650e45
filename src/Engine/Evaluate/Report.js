// Tables that sort: a click on a head sorts by its column, another one the other way round. Cells without a number stay last.
addEventListener('DOMContentLoaded', () => {
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const ascending = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'descending' : column === 0;
        heads.forEach(other => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
        const text = row => row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows].map(row => ({ row, text: text(row), number: parseFloat(text(row)) }));
        const compare = column === 0 ? (a, b) => a.text.localeCompare(b.text) : (a, b) => a.number - b.number;
        const known = rows.filter(row => column === 0 || !isNaN(row.number)).sort((a, b) => ascending ? compare(a, b) : compare(b, a));
        table.tBodies[0].append(...known.concat(rows.filter(row => !known.includes(row))).map(({ row }) => row));
      });
    });
  }
});

// The gallery.
addEventListener('DOMContentLoaded', () => {
  const gallery = document.querySelector('.gallery');
  if (!gallery) return;
  const controls = gallery.querySelector('.controls');
  const cards = gallery.querySelector('.cards');
  const more = document.getElementById('more');
  const page = Number(gallery.dataset.page);
  let items = null; // all images; until they are needed, only the first page is there
  let list = null; // those that the controls leave, in their order
  let shown = cards.children.length;

  const read = node => ({
    node,
    kind: ['missed', 'alarm', 'invalid', 'found', 'passed'].find(kind => node.classList.contains(kind)),
    category: node.dataset.category,
    score: Number(node.dataset.score),
    error: node.dataset.label === '1' ? -Number(node.dataset.score) : Number(node.dataset.score),
    text: node.querySelector('.reason').textContent.toLowerCase(),
  });

  function all() {
    if (!items) {
      items = [...cards.children].map(read);
      for (const held of gallery.querySelectorAll('noscript')) {
        const template = document.createElement('template'); // inert: its pictures are not decoded
        template.innerHTML = held.textContent;
        items.push(...[...template.content.querySelectorAll('li, tbody tr')].map(read));
        held.remove();
      }
    }
    return items;
  }

  const isWrong = item => item.kind === 'found' || item.kind === 'passed' ? 0 : 1;
  const worst = (a, b) => isWrong(b) - isWrong(a) || b.error - a.error;
  const orders = {
    worst,
    high: (a, b) => b.score - a.score,
    low: (a, b) => a.score - b.score,
    category: (a, b) => a.category.localeCompare(b.category) || worst(a, b),
  };

  function choose() {
    const { kind, category, order, text } = Object.fromEntries(new FormData(controls));
    const sought = text.trim().toLowerCase();
    return all()
      .filter(item => (!kind || item.kind === kind) && (!category || item.category === category) && item.text.includes(sought))
      .sort(orders[order]);
  }

  // A card whose picture is a button; of a row, a card whose picture is the file itself, if it is still there.
  function card(item) {
    if (item.node.localName === 'tr') {
      const made = document.createElement('li');
      made.className = 'card ' + item.node.className;
      Object.assign(made.dataset, item.node.dataset);
      if (made.dataset.file) {
        const picture = document.createElement('div');
        const image = new Image();
        picture.className = 'picture';
        image.loading = 'lazy';
        image.alt = item.node.querySelector('.what').textContent;
        image.addEventListener('error', () => image.closest('.picture').remove());
        image.src = made.dataset.file;
        picture.append(image);
        made.append(picture);
      }
      for (const part of ['verdict', 'score', 'what', 'truth', 'reason']) made.append(item.node.querySelector('.' + part));
      item.node = made;
    }
    const picture = item.node.querySelector('div.picture');
    if (picture) {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'picture';
      button.title = 'enlarge';
      button.append(...picture.childNodes);
      picture.replaceWith(button);
    }
    return item.node;
  }

  function tell() {
    const found = list ? list.length : Number(gallery.dataset.count);
    controls.querySelector('[role=status]').textContent = found === 0 ? 'no image is like that' : `${shown} of ${found} shown`;
    more.hidden = shown >= found;
    more.textContent = `show ${Math.min(page, found - shown)} more`;
  }

  function update() {
    list = choose();
    shown = Math.min(page, list.length);
    cards.replaceChildren(...list.slice(0, shown).map(card));
    tell();
  }

  const zoom = dialog();
  controls.hidden = false;
  controls.addEventListener('input', update);
  controls.addEventListener('submit', event => event.preventDefault());
  more.addEventListener('click', () => {
    list ??= choose();
    const next = list.slice(shown, shown + page).map(card);
    cards.append(...next);
    shown += next.length;
    next[0].querySelector('button.picture')?.focus();
    tell();
  });
  cards.addEventListener('click', event => {
    const button = event.target.closest('button.picture');
    if (!button) return;
    list ??= choose();
    zoom.open(list.findIndex(item => item.node === button.closest('.card')));
  });
  for (const node of cards.children) card({ node });
  tell();

  // One image, large: the file itself if it still lies where it lay, else the picture of this page.
  function dialog() {
    const element = document.createElement('dialog');
    const button = (name, label, action) => {
      const made = document.createElement('button');
      made.type = 'button';
      made.textContent = name;
      made.setAttribute('aria-label', label);
      made.addEventListener('click', action);
      return made;
    };
    const image = new Image();
    const caption = document.createElement('div');
    const place = document.createElement('span');
    const bar = document.createElement('div');
    let at = 0;
    image.alt = '';
    caption.className = 'caption';
    caption.setAttribute('aria-live', 'polite');
    bar.className = 'bar';
    bar.append(button('←', 'previous image', () => go(at - 1)), place, button('→', 'next image', () => go(at + 1)), button('close', 'close', () => element.close()));
    element.setAttribute('aria-label', 'image');
    element.append(bar, image, caption);
    document.body.append(element);

    function go(to) {
      if (to < 0 || to >= list.length) return;
      at = to;
      const node = card(list[at]);
      const small = node.querySelector('.picture img');
      image.hidden = !small;
      image.alt = small?.alt ?? '';
      image.src = small?.src ?? 'data:,';
      if (node.dataset.file) {
        const whole = new Image();
        whole.addEventListener('load', () => {
          if (node !== list[at].node) return;
          image.src = whole.src;
          image.hidden = false;
        });
        whole.src = node.dataset.file;
      }
      place.textContent = `${at + 1} of ${list.length}`;
      element.className = node.className.replace('card', 'zoom');
      caption.replaceChildren(...[...node.querySelectorAll('p:not(.gone)')].map(part => part.cloneNode(true)));
      element.scrollTop = 0;
    }

    element.addEventListener('keydown', event => {
      if (event.key === 'ArrowRight') go(at + 1);
      else if (event.key === 'ArrowLeft') go(at - 1);
    });
    element.addEventListener('click', event => event.target === element && element.close());
    element.addEventListener('close', () => {
      const card = list[at].node;
      if (card.isConnected) card.querySelector('button.picture')?.focus();
    });
    return { open(index) { go(index); element.showModal(); } };
  }
});
