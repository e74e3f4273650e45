using System.Text.RegularExpressions;

namespace LrIad.Engine.Tests.Serving;

/// <summary>The examples of docs/engine.md are lines of a program that is compiled and run.</summary>
internal sealed partial class EnginePageTests
{
    [Test]
    public void Every_example_is_part_of_the_sample()
    {
        var page = File.ReadAllText(Path.Combine(TestFiles.Root, "docs", "engine.md"));
        var program = string.Join('\n', Directory.EnumerateFiles(TestFiles.Sample("engine"), "*.cs").Select(file => Flat(File.ReadAllText(file))));
        var examples = Example().Matches(page).Select(match => Flat(match.Groups[1].Value)).ToArray();
        Assert.That(examples, Has.Length.GreaterThan(5));
        Assert.That(examples.Where(example => !program.Contains(example, StringComparison.Ordinal)), Is.Empty);
    }

    private static string Flat(string code) => string.Join('\n', code.Split('\n').Select(line => line.Trim()));

    [GeneratedRegex(@"^```csharp\n(.*?)\n```", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Example();
}
