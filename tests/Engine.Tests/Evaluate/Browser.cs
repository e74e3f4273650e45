using System.Diagnostics;
using System.Net.WebSockets;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>A headless Chromium with one page, driven over the DevTools protocol.</summary>
internal sealed class Browser : IAsyncDisposable
{
    private static readonly string[] Names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome.exe", "msedge.exe"];
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    /// <summary>Text that stands out less than 4.5 : 1 from what is behind it, painted over one another on a canvas.</summary>
    public const string LowContrast = """
        (() => {
          const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
          const over = colours => { canvas.clearRect(0, 0, 1, 1); for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); } return [...canvas.getImageData(0, 0, 1, 1).data]; };
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const low = new Set();
          for (const element of document.querySelectorAll('body *')) {
            if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !element.checkVisibility() || ['title', 'option', 'legend'].includes(element.localName)) continue;
            const style = getComputedStyle(element), behind = [];
            for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
            const colour = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
            const [a, b] = [light(over([...behind, colour])), light(over(behind))].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < 4.5) low.add(`${element.localName}.${element.className.baseVal ?? element.className} ${ratio.toFixed(2)}`);
          }
          return [...low];
        })()
        """;

    private readonly Process _process;
    private readonly string _profile;
    private readonly ClientWebSocket _socket = new();
    private readonly byte[] _buffer = new byte[1 << 16];
    private string? _session;
    private int _calls;

    private Browser(Process process, string profile) => (_process, _profile) = (process, profile);

    /// <summary>Errors of the page's scripts, and what its policy refused.</summary>
    public List<string> Errors { get; } = [];

    /// <summary>Starts it; without a Chromium on the PATH the test is ignored.</summary>
    public static async Task<Browser> Open(bool scripts = true)
    {
        var program = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).SelectMany(folder => Names.Select(name => Path.Combine(folder, name))).FirstOrDefault(File.Exists);
        if (program is null)
        {
            Assert.Ignore("No Chromium, Chrome or Edge is on the PATH.");
        }

        var profile = Directory.CreateTempSubdirectory("lriad-browser-").FullName;
        string[] options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", $"--user-data-dir={profile}", "about:blank"];
        var browser = new Browser(Process.Start(new ProcessStartInfo(program!, options) { RedirectStandardError = true, RedirectStandardOutput = true })!, profile);
        browser._process.ErrorDataReceived += (_, _) => { };
        browser._process.OutputDataReceived += (_, _) => { };
        browser._process.BeginErrorReadLine();
        browser._process.BeginOutputReadLine();
        var (port, started) = (Path.Combine(profile, "DevToolsActivePort"), Stopwatch.StartNew());
        string[] lines;
        while ((lines = File.Exists(port) ? await File.ReadAllLinesAsync(port) : []).Length < 2)
        {
            Assert.That(started.Elapsed, Is.LessThan(Patience), $"{program} did not start");
            await Task.Delay(50);
        }

        await browser._socket.ConnectAsync(new Uri($"ws://127.0.0.1:{lines[0]}{lines[1]}"), CancellationToken.None);
        var target = (await browser.Call("Target.createTarget", new() { ["url"] = "about:blank" }))["targetId"]!.GetValue<string>();
        browser._session = (await browser.Call("Target.attachToTarget", new() { ["targetId"] = target, ["flatten"] = true }))["sessionId"]!.GetValue<string>();
        foreach (var domain in new[] { "Page", "Runtime", "Log" })
        {
            await browser.Call($"{domain}.enable");
        }

        await browser.Call("Emulation.setScriptExecutionDisabled", new() { ["value"] = !scripts });
        return browser;
    }

    /// <summary>Goes to a file or an address, and waits until it is loaded.</summary>
    public async Task Load(string file)
    {
        await Value<bool>("window.stale = true");
        await Call("Page.navigate", new() { ["url"] = new Uri(file).AbsoluteUri });
        await Until("!window.stale && document.readyState === 'complete'");
    }

    /// <summary>The value of an expression.</summary>
    public async Task<T> Value<T>(string expression)
    {
        var answer = await Call("Runtime.evaluate", new() { ["expression"] = expression, ["returnByValue"] = true, ["awaitPromise"] = true });
        Assert.That(answer["exceptionDetails"]?.ToJsonString(), Is.Null, expression);
        return answer["result"]!["value"].Deserialize<T>()!;
    }

    /// <summary>Waits until an expression is true.</summary>
    public async Task Until(string expression)
    {
        for (var started = Stopwatch.StartNew(); !await Value<bool>(expression); await Task.Delay(20))
        {
            Assert.That(started.Elapsed, Is.LessThan(Patience), expression);
        }
    }

    /// <summary>Presses a key, as a person does.</summary>
    public async Task Press(string key, int code, string? text = null)
    {
        foreach (var type in new[] { "keyDown", "keyUp" })
        {
            var press = new JsonObject { ["type"] = type, ["key"] = key, ["code"] = key, ["windowsVirtualKeyCode"] = code };
            if (text is not null && type == "keyDown")
            {
                press["text"] = text;
            }

            await Call("Input.dispatchKeyEvent", press);
        }
    }

    /// <summary>Types a text into what has the focus.</summary>
    public Task Type(string text) => Call("Input.insertText", new() { ["text"] = text });

    /// <summary>Chooses files in a field for files, as a person does in the system's own dialog.</summary>
    public async Task ChooseFiles(string selector, params string[] files)
    {
        var field = await Call("Runtime.evaluate", new() { ["expression"] = $"document.querySelector('{selector}')" });
        await Call("DOM.setFileInputFiles", new() { ["objectId"] = field["result"]!["objectId"]!.GetValue<string>(), ["files"] = new JsonArray([.. files.Select(file => JsonValue.Create(file))]) });
    }

    /// <summary>Makes the window so wide, and asserts that nothing has to be scrolled sideways.</summary>
    public async Task AssertFits(int width)
    {
        await Call("Emulation.setDeviceMetricsOverride", new() { ["width"] = width, ["height"] = 740, ["deviceScaleFactor"] = 1, ["mobile"] = false });
        Assert.That(await Value<int>("document.documentElement.scrollWidth"), Is.LessThanOrEqualTo(width));
    }

    /// <summary>Calls a method of the protocol.</summary>
    public async Task<JsonObject> Call(string method, JsonObject? parameters = null)
    {
        var id = ++_calls;
        var message = new JsonObject { ["id"] = id, ["method"] = method, ["params"] = parameters ?? [] };
        if (_session is not null)
        {
            message["sessionId"] = _session;
        }

        using var limit = new CancellationTokenSource(Patience);
        await _socket.SendAsync(JsonSerializer.SerializeToUtf8Bytes(message), WebSocketMessageType.Text, true, limit.Token);
        while (true)
        {
            var answer = await Receive(limit.Token);
            switch (answer["method"]?.GetValue<string>())
            {
                case "Runtime.exceptionThrown":
                    Errors.Add(answer["params"]!.ToJsonString());
                    break;
                case "Log.entryAdded" when answer["params"]!["entry"]!["level"]!.GetValue<string>() == "error":
                    Errors.Add(answer["params"]!["entry"]!["text"]!.GetValue<string>());
                    break;
            }

            if (answer["id"]?.GetValue<int>() == id)
            {
                Assert.That(answer["error"]?.ToJsonString(), Is.Null, method);
                return (JsonObject)answer["result"]!;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        _socket.Dispose();
        _process.Kill(entireProcessTree: true);
        await _process.WaitForExitAsync();
        _process.Dispose();
        try
        {
            Directory.Delete(_profile, recursive: true);
        }
        catch (IOException)
        {
            // A process of its own that is about to end still writes there.
        }
    }

    private async Task<JsonObject> Receive(CancellationToken cancellation)
    {
        using var message = new MemoryStream();
        ValueWebSocketReceiveResult part;
        do
        {
            part = await _socket.ReceiveAsync(_buffer.AsMemory(), cancellation);
            message.Write(_buffer, 0, part.Count);
        }
        while (!part.EndOfMessage);
        return (JsonObject)JsonNode.Parse(message.ToArray())!;
    }
}
