using System.Text;
using CsCheck;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

/// <summary>Conversations of several turns, images anywhere, against the chat template of tokenizer_config.json written out and cut into tokens as a whole.</summary>
internal sealed class ConversationTests
{
    private static readonly Tokenizer Tiny = Tokenizer.Load(Path.Combine(TestFiles.TinyModel, "tokenizer.json"));

    [Test]
    public void A_conversation_is_the_chat_template_written_out()
    {
        var part = Gen.Select(Gen.Int[0, 3], Gen.String[Gen.Char["ab \n\r\t1.é\u0301😀<|>"], 0, 8]).Select((kind, text) => kind == 0 ? new ChatPart(null, 1) : new ChatPart(text));
        var turn = Gen.Select(Gen.Int[0, 2].Select(role => new[] { "system", "user", "assistant" }[role]), part.Array[0, 4]).Select((role, parts) => new ChatTurn(role, parts));
        turn.Array[1, 5].Sample(turns => Assert.That(ChatPrompt.Build(Tiny, turns), Is.EqualTo(Tiny.EncodeWithSpecial(Written(turns)))), iter: 2000);
    }

    [Test]
    public void An_image_takes_the_tokens_it_has()
    {
        var one = ChatPrompt.Build(Tiny, [new ChatTurn("user", [new ChatPart("see "), new ChatPart(null, 1), new ChatPart(" there")])]);
        var seven = ChatPrompt.Build(Tiny, [new ChatTurn("user", [new ChatPart("see "), new ChatPart(null, 7), new ChatPart(" there")])]);
        var pad = Tiny.TokenId("<|image_pad|>")!.Value;
        Assert.That(seven, Is.EqualTo(one.SelectMany(id => Enumerable.Repeat(id, id == pad ? 7 : 1))));
    }

    // The template by hand: none of the texts has a special token in it.
    private static string Written(ChatTurn[] turns)
    {
        var text = new StringBuilder();
        if (turns[0].Role != "system")
        {
            text.Append("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n");
        }

        foreach (var turn in turns)
        {
            text.Append("<|im_start|>").Append(turn.Role).Append('\n');
            foreach (var part in turn.Parts)
            {
                text.Append(part.Text ?? "<|vision_start|><|image_pad|><|vision_end|>");
            }

            text.Append("<|im_end|>\n");
        }

        return text.Append("<|im_start|>assistant\n").ToString();
    }
}
