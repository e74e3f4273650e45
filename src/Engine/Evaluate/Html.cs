using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>A piece of HTML. Made from interpolated strings, whose values are escaped unless they are HTML themselves: nothing from a file name or a model gets in as markup.</summary>
internal sealed class Html
{
    private readonly string _text;

    private Html(string text) => _text = text;

    /// <summary>Nothing.</summary>
    public static Html None { get; } = new("");

    /// <summary>The markup of an interpolated string, its values escaped.</summary>
    public static Html Of(Writer writer) => new(writer.ToString());

    /// <summary>Markup that the project itself wrote.</summary>
    public static Html Trusted(string markup) => new(markup);

    /// <summary>The markup.</summary>
    public override string ToString() => _text;

    /// <summary>Puts interpolated strings together.</summary>
    [InterpolatedStringHandler]
    public readonly ref struct Writer
    {
        private readonly StringBuilder _markup;

        public Writer(int literalLength, int formattedCount) => _markup = new StringBuilder(literalLength + (16 * formattedCount));

        public void AppendLiteral(string markup) => _markup.Append(markup);

        public void AppendFormatted(Html html) => _markup.Append(html._text);

        public void AppendFormatted(IEnumerable<Html> pieces) => _markup.AppendJoin("", pieces);

        public void AppendFormatted(string? text) => _markup.Append(WebUtility.HtmlEncode(text is not null && text.Any(IsControl) ? string.Concat(text.Select(Visible)) : text));

        public void AppendFormatted<T>(T value, string? format = null)
            where T : IFormattable => AppendFormatted(value.ToString(format, CultureInfo.InvariantCulture));

        public override string ToString() => _markup.ToString();

        // What HTML does not allow to stand in a text.
        private static bool IsControl(char letter) => letter is (< ' ' and not ('\t' or '\n' or '\r')) or (>= '\x7f' and <= '\x9f') or '\ufffe' or '\uffff';

        // Unicode has a picture of each control character, at 2400.
        private static char Visible(char letter) => !IsControl(letter) ? letter : letter < ' ' ? (char)('\u2400' + letter) : letter == '\x7f' ? '\u2421' : '\ufffd';
    }
}
