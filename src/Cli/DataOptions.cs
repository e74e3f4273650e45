using LrIad.Engine;

namespace LrIad.Cli;

/// <summary>What several verbs say about data and files.</summary>
internal static class DataOptions
{
    public const string LayoutHelp = "auto (default), mvtec, visa, folder or manifest";
    public const string SplitHelp = "all (default), train or test";
    public const string CategoriesHelp = "these categories alone (all)";
    public const string WithoutCategoriesHelp = "all categories but these";

    public static string Layout(Values values) => values.OneOf("auto", "mvtec", "visa", "folder", "manifest");

    public static string Split(Values values) => values.OneOf("all", "train", "test");

    /// <summary>Names parted by commas.</summary>
    public static IReadOnlyList<string> Categories(Values values) => values.List.Count > 0 ? values.List : throw values.Bad("needs a name");

    /// <summary>A limit that leaves an image at least one token.</summary>
    public static int MaxPixels(Values values) => values.Integer >= 28 * 28 ? values.Integer : throw values.Bad("must be at least 784");

    /// <summary>Whole numbers from 1 on.</summary>
    public static int Positive(Values values) => values.Integer > 0 ? values.Integer : throw values.Bad("must be at least 1");

    /// <summary>An option that cannot be left out.</summary>
    public static string Require(string? value, string option) => string.IsNullOrWhiteSpace(value) ? throw new InputException($"{option} is needed.") : value;
}
