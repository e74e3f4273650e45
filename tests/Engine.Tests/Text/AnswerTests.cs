using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class AnswerTests
{
    [TestCase("<think>It is scratched.</think> <answer>A</answer>", AnswerKind.Defect)]
    [TestCase("<think></think><answer>B</answer>", AnswerKind.Normal)]
    [TestCase("<think>two\nlines</think>\n\n<answer>\n B\t</answer>", AnswerKind.Normal)]
    public void Valid(string completion, AnswerKind kind)
    {
        var answer = Answer.Parse(completion);
        Assert.That((answer.Kind, answer.Reason, answer.IsValid), Is.EqualTo((kind, InvalidReason.None, true)));
    }

    [TestCase("", InvalidReason.Empty)]
    [TestCase(" \n", InvalidReason.Empty)]
    [TestCase("A", InvalidReason.NoTags)]
    [TestCase("There is a crack, so A.", InvalidReason.NoTags)]
    [TestCase("<answer>A</answer>", InvalidReason.MissingTag)]
    [TestCase("<think>x <answer>A</answer>", InvalidReason.MissingTag)]
    [TestCase("<think>x</think> A", InvalidReason.MissingTag)]
    [TestCase("<think>x</think> <answer>A", InvalidReason.MissingTag)]
    [TestCase("<think>x</think> <answer>A or B</answer>", InvalidReason.TwoAnswers)]
    [TestCase("<think>x</think> <answer>(B), not\nA</answer>", InvalidReason.TwoAnswers)]
    [TestCase("<think>x</think> <answer>A</answer> <answer>A</answer>", InvalidReason.TwoAnswers)]
    [TestCase("<think>x</think> <answer>Bad</answer>", InvalidReason.BadOption)]
    [TestCase("<think>x</think> <answer></answer>", InvalidReason.Empty)]
    [TestCase("<think>x</think> <answer>a</answer>", InvalidReason.BadOption)]
    [TestCase("<think>x</think> <answer>(A)</answer>", InvalidReason.BadOption)]
    [TestCase("<think>x<think></think> <answer>A</answer>", InvalidReason.RepeatedTag)]
    [TestCase("<think>x</think> <answer>A</answer><answer>B</answer>", InvalidReason.TwoAnswers)]
    [TestCase("<think>x</think> so <answer>A</answer>", InvalidReason.ExtraText)]
    [TestCase("<think>x</think> <answer>A</answer>\n", InvalidReason.ExtraText)]
    [TestCase(" <think>x</think> <answer>A</answer>", InvalidReason.ExtraText)]
    [TestCase("<answer>A</answer> <think>x</think>", InvalidReason.ExtraText)]
    [TestCase("<think>x <answer>A</think></answer>", InvalidReason.ExtraText)]
    public void Invalid(string completion, InvalidReason reason)
    {
        var answer = Answer.Parse(completion);
        Assert.That((answer.Kind, answer.Reason, answer.IsValid, answer.Contradicts), Is.EqualTo((AnswerKind.Invalid, reason, false, (bool?)null)));
    }

    [Test]
    public void Cut_off_is_no_answer() => Assert.That(Answer.Parse("<think>x</think> <answer>A</answer>", ended: false).Reason, Is.EqualTo(InvalidReason.CutOff));

    [TestCase("Looking at the washer, the edges and the texture are regular. I can see no defect.", false)]
    [TestCase("The texture is regular. I can see a scratch near the edge.", true)]
    [TestCase("There are no scratches, cracks or visible dents.", false)]
    [TestCase("I don't see any damage.", false)]
    [TestCase("It doesn’t look damaged.", false)]
    [TestCase("The surface is not uniform.", true)]
    [TestCase("There is a crack. The rest is normal.", false)]
    [TestCase("It has no scratch but a stain.", null)]
    [TestCase("No dirt, but there is a dent.", true)]
    [TestCase("The part is defect-free.", false)]
    [TestCase("I check whether there is any defect.", null)]
    [TestCase("I check whether there is any defect. It is broken.", true)]
    [TestCase("It is a nut.", null)]
    [TestCase("", null)]
    public void Contradiction(string reasoning, bool? ofNormal) => Assert.Multiple(() =>
    {
        Assert.That(Answer.Parse($"<think>{reasoning}</think> <answer>B</answer>").Contradicts, Is.EqualTo(ofNormal));
        Assert.That(Answer.Parse($"<think>{reasoning}</think> <answer>A</answer>").Contradicts, Is.EqualTo(!ofNormal));
    });

    [Test]
    public void Options_are_found_in_context()
    {
        var tokenizer = QwenTokenizer.Full;
        var options = AnswerOptions.Find(tokenizer);
        Assert.Multiple(() =>
        {
            Assert.That(tokenizer.Decode(options.ProbeSuffix), Is.EqualTo("<think></think> <answer"));
            Assert.That(tokenizer.Decode([options.DefectToken]), Is.EqualTo(">A"));
            Assert.That(tokenizer.Decode([options.NormalToken]), Is.EqualTo(">B"));
        });
    }

    [TestCase("<think>A \u9F98 B</think> <answer>A</answer>", ">A", ">B")]
    [TestCase("<think>A</think> <answer> B</answer>", " A", " B")]
    [TestCase("<think>A</think> <answer>\n\nB</answer>", "A", "B")]
    [TestCase("<think>A</think> <answer>C</answer>", null, null)]
    [TestCase("<think>A</think> <answer>", null, null)]
    [TestCase("A", null, null)]
    public void Locate_finds_the_letter(string completion, string? defect, string? normal)
    {
        var tokenizer = QwenTokenizer.Full;
        var ids = tokenizer.Encode(completion);
        var found = AnswerOptions.Locate(tokenizer, ids);
        Assert.Multiple(() =>
        {
            Assert.That(found is { } place ? tokenizer.Decode([place.Defect]) : null, Is.EqualTo(defect));
            Assert.That(found is { } other ? tokenizer.Decode([other.Normal]) : null, Is.EqualTo(normal));
            Assert.That(found is { } at ? tokenizer.Decode([.. ids[..(at.Position + 1)]]) : null, found is null ? Is.Null : Does.Match(@"<answer>\s*[AB]$"));
        });
    }
}
