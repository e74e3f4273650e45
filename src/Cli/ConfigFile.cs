using LrIad.Engine;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace LrIad.Cli;

/// <summary>A configuration file: settings by the names of the options, in YAML or in JSON, which is read as the YAML it is.</summary>
internal static class ConfigFile
{
    /// <summary>Its keys and values with the places they stand at.</summary>
    /// <exception cref="InputException">It cannot be read, or is not a list of names and values.</exception>
    public static IEnumerable<(string Name, Values Values)> Read(string file)
    {
        foreach (var (key, value) in Root(file).Children)
        {
            var name = key is YamlScalarNode { Value: { Length: > 0 } text } ? text : throw Bad(file, key, "a setting's name must be a word");
            var where = $"{file}, line {key.Start.Line}: {name}";
            yield return (name, new Values(where, [.. Texts(where, value)]));
        }
    }

    private static YamlMappingNode Root(string file)
    {
        try
        {
            var text = File.ReadAllText(file);
            var yaml = new YamlStream();

            // JSON may be indented by tabs, YAML not; inside JSON's strings there are none.
            yaml.Load(new StringReader(text.TrimStart().StartsWith('{') ? text.Replace('\t', ' ') : text));
            return yaml.Documents.Count == 0 ? new YamlMappingNode()
                : yaml.Documents[0].RootNode as YamlMappingNode ?? throw Bad(file, yaml.Documents[0].RootNode, "the file must be a list of settings, 'name: value' each");
        }
        catch (YamlException e)
        {
            throw new InputException($"{file}, line {e.Start.Line}: {(e.InnerException ?? e).Message}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"The configuration file {file} cannot be read: {e.Message}", e);
        }
    }

    private static IEnumerable<string> Texts(string where, YamlNode value) => value switch
    {
        YamlScalarNode { Style: ScalarStyle.Plain, Value: null or "" or "~" or "null" } => throw new InputException($"{where} has no value."),
        YamlScalarNode scalar => [scalar.Value!],
        YamlSequenceNode list when list.All(item => item is YamlScalarNode) => list.SelectMany(item => Texts(where, item)),
        _ => throw new InputException($"{where} must be a value or a list of values."),
    };

    private static InputException Bad(string file, YamlNode node, string problem) => new($"{file}, line {node.Start.Line}: {problem}.");
}
