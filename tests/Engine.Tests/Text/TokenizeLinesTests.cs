using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class TokenizeLinesTests
{
    [Test]
    public void Every_line_becomes_its_ids()
    {
        using var output = new StringWriter();
        TokenizeLines.Run(QwenTokenizer.Full, new StringReader("{\"text\":\"Hello world\"}\n\n{\"id\":1,\"text\":\"<|im_end|>\\n\"}\r\n{\"text\":\"\"}"), output);
        Assert.That(output.ToString(), Is.EqualTo("{\"ids\":[9707,1879]}\n{\"ids\":[151645,198]}\n{\"ids\":[]}\n"));
    }

    [TestCase("{\"text\":\"a\"}\nnonsense")]
    [TestCase("{\"text\":\"a\"}\n{\"txt\":\"a\"}")]
    [TestCase("{\"text\":\"a\"}\n{\"text\":5}")]
    [TestCase("{\"text\":\"a\"}\n[\"text\"]")]
    [TestCase("{\"text\":\"a\"}\n{\"text\":\"\\ud800\"}")]
    public void A_bad_line_is_named(string lines)
    {
        using var output = new StringWriter();
        Assert.That(() => TokenizeLines.Run(QwenTokenizer.Full, new StringReader(lines), output), Throws.TypeOf<InputException>().With.Message.StartsWith("Line 2:"));
    }
}
