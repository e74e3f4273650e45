using System.Net;
using LrIad.Engine.Serving;
using LrIad.Engine.Tests.Evaluate;

namespace LrIad.Server.Tests;

/// <summary>The page, in a browser: image, object, verdict as it streams, recent ones; by mouse, by keyboard, small and large, light and dark.</summary>
[TestFixture]
internal sealed class PageTests
{
    private const string Scratch = "<think>There is a long scratch. It crosses the edge.</think> <answer> A </answer>";
    private const string Hostile = "<think>Look: <img src=x onerror=alert(1)> <script>document.title = 'gone'</script> &amp;</think> <answer> B </answer>";

    private Browser _browser = null!;
    private string _folder = null!;
    private string _image = null!;

    [OneTimeSetUp]
    public async Task Open()
    {
        _browser = await Browser.Open();
        _folder = Directory.CreateTempSubdirectory("lriad-page-").FullName;
        _image = Path.Combine(_folder, "part 7.png");
        File.WriteAllBytes(_image, Convert.FromBase64String("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="));
    }

    [OneTimeTearDown]
    public async Task Close()
    {
        if (_browser is not null)
        {
            await _browser.DisposeAsync();
            Directory.Delete(_folder, recursive: true);
        }
    }

    [SetUp]
    public void Forget() => _browser.Errors.Clear();

    [Test]
    public async Task ThePageNeedsNothingFromElsewhereAndRunsNoOtherScript()
    {
        await using var server = await StartAsync(Scratch);
        using var response = await server.Client.GetAsync("/");
        var (html, policy) = (await response.Content.ReadAsStringAsync(), response.Headers.GetValues("Content-Security-Policy").Single());
        Assert.Multiple(() =>
        {
            Assert.That(response.Content.Headers.ContentType!.ToString(), Is.EqualTo("text/html; charset=utf-8"));
            Assert.That(policy, Does.StartWith("default-src 'none'; style-src 'sha256-").And.Contain("script-src 'sha256-").And.Contain("frame-ancestors 'none'").And.Not.Contain("unsafe"));
            Assert.That(html, Does.Not.Match("(src|href)=[\"'](?!data:)").And.Not.Contain("http").And.Not.Contain("{style}").And.Not.Contain("innerHTML"));
        });
    }

    [Test]
    public async Task AnImageIsChosenAndTheAnswerStreams()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => Scratch, TokenTime = TimeSpan.FromMilliseconds(120) };
        await using var server = await TestServer.StartAsync(engine);
        await _browser.Load(server.Address.ToString());
        await _browser.Until($"document.getElementById('model').textContent === '{FakeEngine.Name}'");
        await _browser.ChooseFiles("#image", _image);
        await _browser.Until("document.activeElement.id === 'object'");
        await _browser.Type("metal_nut");
        await _browser.Press("Enter", 13, "\r");

        // The score comes first, then the reasoning word by word, without its tags.
        await _browser.Until("document.getElementById('reason').textContent.startsWith('There is')");
        Assert.That(await _browser.Value<string[]>("['verdict', 'score', 'what'].map(id => document.getElementById(id).textContent)"), Is.EqualTo(new[] { "Looking …", "+1.50", "metal nut · part 7.png" }));
        Assert.That(await _browser.Value<bool>("document.getElementById('result').getAttribute('aria-busy') === 'true' && document.getElementById('stop').checkVisibility()"), Is.True);
        await _browser.Until("document.getElementById('spoken').textContent === 'There is a long scratch.'");
        await _browser.Until("document.getElementById('verdict').textContent === 'Defect'");
        Assert.Multiple(async () =>
        {
            Assert.That(await _browser.Value<string>("document.getElementById('reason').textContent"), Is.EqualTo("There is a long scratch. It crosses the edge."));
            Assert.That(await _browser.Value<string>("document.getElementById('spoken').textContent"), Is.EqualTo("Defect, score +1.50. It crosses the edge."));
            Assert.That(await _browser.Value<string[]>("[...document.querySelectorAll('#cards .card p')].map(p => p.textContent)"), Is.EqualTo(new[] { "Defect", "+1.50", "metal nut · part 7.png", "There is a long scratch. It crosses the edge." }));
            Assert.That(await _browser.Value<bool>("document.getElementById('stop').checkVisibility()"), Is.False);
            Assert.That(_browser.Errors, Is.Empty);
        });
        Assert.That(((Conversation)engine.Requests.Single().Prompt).Messages.Single().Parts[0].Image!.Bytes.Length, Is.EqualTo(new FileInfo(_image).Length));
    }

    [Test]
    public async Task TheKeyboardAloneIsEnough()
    {
        await using var server = await StartAsync(Scratch);
        await _browser.Load(server.Address.ToString());
        await _browser.Until("document.getElementById('model').textContent !== ''");
        var path = new List<string>();
        for (var i = 0; i < 5; i++)
        {
            await _browser.Press("Tab", 9);
            path.Add(await _browser.Value<string>("document.activeElement.id || document.activeElement.textContent"));
            Assert.That(await _browser.Value<bool>("(e => getComputedStyle(e).outlineStyle !== 'none' || getComputedStyle(e.parentElement).outlineStyle !== 'none')(document.activeElement)"), Is.True, $"the focus is seen at {path[^1]}");
        }

        Assert.That(path, Is.EqualTo(new[] { "theme", "image", "object", "More", "Inspect" }));

        // Pressed without an image, it says what is missing, and goes there.
        await _browser.Press("Enter", 13, "\r");
        Assert.That(await _browser.Value<string[]>("[document.activeElement.id, document.getElementById('problem').textContent, document.getElementById('image').getAttribute('aria-invalid')]"), Is.EqualTo(new[] { "image", "Choose an image first.", "true" }));
        await _browser.ChooseFiles("#image", _image);
        await _browser.Until("document.activeElement.id === 'object'");
        await _browser.Press("Enter", 13, "\r");
        Assert.That(await _browser.Value<string[]>("[document.activeElement.id, document.getElementById('problem').textContent]"), Is.EqualTo(new[] { "object", "Name the object that the image shows." }));
        await _browser.Type("tile");
        await _browser.Press("Enter", 13, "\r");
        await _browser.Until("document.querySelectorAll('#cards .card').length === 1");

        // A recent one is brought back by its picture.
        await _browser.Value<string>("document.getElementById('object').value = ''");
        await _browser.Value<bool>("document.querySelector('#cards button').focus() ?? true");
        await _browser.Press("Enter", 13, "\r");
        Assert.That(await _browser.Value<string[]>("[document.activeElement.id, document.getElementById('object').value]"), Is.EqualTo(new[] { "object", "tile" }));
        Assert.That(_browser.Errors, Is.Empty);
    }

    [Test]
    public async Task DroppedPastedAndStopped()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => Scratch, TokenTime = TimeSpan.FromMilliseconds(200) };
        await using var server = await TestServer.StartAsync(engine);
        await _browser.Load(server.Address.ToString());
        const string Transfer = "(data => (data.items.add(new File([new Uint8Array([1, 2, 3])], '{0}', {{ type: 'image/png' }})), data))(new DataTransfer())";
        await _browser.Value<bool>($"window.dispatchEvent(new DragEvent('drop', {{ bubbles: true, cancelable: true, dataTransfer: {string.Format(null, Transfer, "dropped.png")} }}))");
        Assert.That(await _browser.Value<string>("document.getElementById('chosen').textContent"), Is.EqualTo("dropped.png"));
        await _browser.Value<bool>($"window.dispatchEvent(new ClipboardEvent('paste', {{ clipboardData: {string.Format(null, Transfer, "pasted.png")} }}))");
        Assert.That(await _browser.Value<string>("document.getElementById('chosen').textContent"), Is.EqualTo("pasted.png"));

        await _browser.Type("tile");
        await _browser.Press("Enter", 13, "\r");
        await _browser.Until("document.getElementById('reason').textContent.length > 0");
        await _browser.Press("Escape", 27);
        await _browser.Until("document.getElementById('verdict').textContent === 'Stopped'");
        for (var waited = 0; engine.Statistics.Running > 0; waited++)
        {
            Assert.That(waited, Is.LessThan(500), "the engine is told that the browser is gone");
            await Task.Delay(10);
        }

        Assert.That(await _browser.Value<int>("document.querySelectorAll('#cards .card').length"), Is.Zero);
    }

    [Test]
    public async Task WhatTheModelSaysIsTextAndErrorsAreShown()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => Hostile };
        await using var server = await TestServer.StartAsync(engine);
        await InspectAsync(server.Address.ToString(), "<b>tile</b>");
        await _browser.Until("document.querySelectorAll('#cards .card').length === 1");
        Assert.Multiple(async () =>
        {
            Assert.That(await _browser.Value<string>("document.getElementById('reason').textContent"), Is.EqualTo("Look: <img src=x onerror=alert(1)> <script>document.title = 'gone'</script> &amp;"));
            Assert.That(await _browser.Value<string>("document.querySelector('#cards .what').textContent"), Does.StartWith("<b>tile</b>"));
            Assert.That(await _browser.Value<int>("document.querySelectorAll('script, [onerror], main b:not(#chosen)').length"), Is.EqualTo(1), "the page's own script alone");
            Assert.That(await _browser.Value<string>("document.title"), Is.EqualTo("Inspect · lriad-fast"));
        });

        engine.Failure = new EngineBusyException("256 requests are waiting.");
        await _browser.Value<bool>("document.querySelector('.primary').click() ?? true");
        await _browser.Until("document.getElementById('problem').textContent === '256 requests are waiting.'");
        Assert.That(await _browser.Value<string>("document.getElementById('verdict').textContent"), Is.EqualTo("Not inspected"));
    }

    [Test]
    public async Task WithAThresholdTheScoreDecidesAndAnInvalidAnswerSaysWhy()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => "It looks fine to me." };
        await using var server = await TestServer.StartAsync(engine);
        await InspectAsync(server.Address.ToString(), "tile");
        await _browser.Until("document.getElementById('verdict').textContent === 'No valid answer'");
        Assert.That(await _browser.Value<string>("document.getElementById('facts').textContent"), Does.StartWith("Not in the required form: no tags."));
        await _browser.Value<string>("document.getElementById('threshold').value = '1,5'");
        await _browser.Value<bool>("document.querySelector('.primary').click() ?? true");
        await _browser.Until("document.getElementById('verdict').textContent === 'Defect'");
        Assert.That(await _browser.Value<string>("document.getElementById('facts').textContent"), Does.StartWith("By its score: the threshold is 1.5. The model’s own answer: none that is valid."));
        await _browser.Value<string>("document.getElementById('threshold').value = 'much'");
        await _browser.Value<bool>("document.querySelector('.primary').click() ?? true");
        Assert.That(await _browser.Value<string>("document.getElementById('problem').textContent"), Is.EqualTo("The threshold is not a number."));
        Assert.That(_browser.Errors, Is.Empty);
    }

    [Test]
    public async Task AServerWithAKeyAsksTheBrowserForIt()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => Scratch };
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { ApiKey = "secret" });
        using var refused = await server.Client.GetAsync("/");
        Assert.That((refused.StatusCode, refused.Headers.WwwAuthenticate.ToString()), Is.EqualTo((HttpStatusCode.Unauthorized, "Bearer, Basic realm=\"lriad-fast\"")));
        await InspectAsync($"http://anyone:secret@127.0.0.1:{server.Address.Port}/", "tile");
        await _browser.Until("document.getElementById('verdict').textContent === 'Defect'");
    }

    [Test]
    public async Task AdaptersCanBeChosen()
    {
        await using var engine = new FakeEngine { Answer = (_, _) => Scratch };
        await File.WriteAllTextAsync(Path.Combine(_folder, "adapter_config.json"), "{}");
        await engine.LoadAdapterAsync("step-40", _folder);
        await using var server = await TestServer.StartAsync(engine);
        await _browser.Load(server.Address.ToString());
        await _browser.Until("document.getElementById('adapters').checkVisibility()");
        await _browser.Value<string>("document.getElementById('adapter').value = 'step-40'");
        await InspectAsync(null, "tile");
        await _browser.Until("document.getElementById('verdict').textContent === 'Defect'");
        Assert.That(engine.Requests.Single().Adapter, Is.EqualTo("step-40"));
        Assert.That(await _browser.Value<string>("document.getElementById('what').textContent"), Is.EqualTo("tile · part 7.png · step-40"));
    }

    [Test]
    public async Task APhoneShowsItWithoutScrollingSidewaysAndTextStandsOutInBothThemes()
    {
        await using var server = await StartAsync(Scratch);
        await _browser.Load(server.Address.ToString());
        foreach (var step in new[] { "empty", "answered" })
        {
            foreach (var theme in new[] { "light", "dark" })
            {
                await _browser.Value<string>($"document.documentElement.dataset.theme = '{theme}'");
                foreach (var width in new[] { 320, 700, 1280 })
                {
                    await _browser.AssertFits(width);
                }

                Assert.That(await _browser.Value<string[]>(Browser.LowContrast), Is.Empty, $"{step}, {theme}");
            }

            if (step == "empty")
            {
                await InspectAsync(null, "a_very_long_name_of_an_object_that_does_not_fit_a_phone_in_one_line");
                await _browser.Until("document.querySelectorAll('#cards .card').length === 1");
                await _browser.Value<bool>("document.querySelector('details').open = true");
            }
        }

        var levels = await _browser.Value<int[]>("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.localName[1]))");
        Assert.Multiple(async () =>
        {
            Assert.That(levels, Is.EqualTo(new[] { 1, 2, 2 }));
            Assert.That(await _browser.Value<string[]>("[...document.querySelectorAll('input, select')].filter(field => field.labels.length !== 1).map(field => field.id)"), Is.Empty, "every field has its label");
            Assert.That(await _browser.Value<int>("document.querySelectorAll('img:not([alt]), #cards img[alt=\"\"], button:not([type])').length"), Is.Zero);
            Assert.That(await _browser.Value<string[]>("[...document.querySelectorAll('[aria-describedby], [aria-labelledby]')].flatMap(e => [e.getAttribute('aria-describedby'), e.getAttribute('aria-labelledby')]).filter(id => id && !document.getElementById(id))"), Is.Empty);
            Assert.That(_browser.Errors, Is.Empty);
        });
    }

    private static Task<TestServer> StartAsync(string answer) => TestServer.StartAsync(new FakeEngine { Answer = (_, _) => answer });

    private async Task InspectAsync(string? address, string name)
    {
        if (address is not null)
        {
            await _browser.Load(address);
        }

        await _browser.ChooseFiles("#image", _image);
        await _browser.Until("document.activeElement.id === 'object'");
        await _browser.Type(name);
        await _browser.Press("Enter", 13, "\r");
    }
}
