using System.Management.Automation.Language;
using System.Text.RegularExpressions;

namespace LrIad.Cli.Tests;

/// <summary>The two build scripts parse and know the same verbs.</summary>
[TestFixture]
internal sealed partial class BuildScriptTests
{
    private static readonly string[] Verbs = ["setup", "build", "kernels", "test", "demo", "pack", "bundle"];

    [Test]
    public void PowerShellParsesTheScript()
    {
        Parser.ParseFile(Path.Combine(Project.Root, "build.ps1"), out _, out var errors);
        Assert.That(errors, Is.Empty);
    }

    [Test]
    public void BothKnowTheSameVerbs() => Assert.Multiple(() =>
    {
        Assert.That(ShellVerbs(), Is.EquivalentTo(Verbs), "build.sh");
        Assert.That(PowerShellVerbs(), Is.EquivalentTo(Verbs), "build.ps1");
    });

    [Test]
    public void PowerShellCallsOnlyCmakeAndDotnet()
    {
        var script = Parser.ParseFile(Path.Combine(Project.Root, "build.ps1"), out _, out _);
        var tools = script.FindAll(node => node is CommandAst command && command.GetCommandName() == "Invoke-Tool", searchNestedScriptBlocks: true)
            .Cast<CommandAst>().Select(command => command.CommandElements[1].Extent.Text).Distinct();
        Assert.That(tools, Is.SubsetOf(new[] { "cmake", "dotnet" }).And.Not.Empty);
    }

    // The labels of the last case statement.
    private static IEnumerable<string> ShellVerbs()
    {
        var script = File.ReadAllText(Path.Combine(Project.Root, "build.sh"));
        return CaseLabel().Matches(script[script.LastIndexOf("case \"$verb\"", StringComparison.Ordinal)..]).Select(match => match.Groups[1].Value);
    }

    private static IEnumerable<string> PowerShellVerbs()
    {
        var script = Parser.ParseFile(Path.Combine(Project.Root, "build.ps1"), out _, out _);
        var statement = (SwitchStatementAst)script.Find(node => node is SwitchStatementAst, searchNestedScriptBlocks: false);
        return statement.Clauses.Select(clause => ((StringConstantExpressionAst)clause.Item1).Value);
    }

    [GeneratedRegex(@"^\s+([a-z]+)\)", RegexOptions.Multiline)]
    private static partial Regex CaseLabel();
}
