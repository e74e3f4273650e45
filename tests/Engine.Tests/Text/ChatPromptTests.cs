using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class ChatPromptTests
{
    [Test]
    public void Special_tokens_in_a_name_stay_text()
    {
        var tokenizer = QwenTokenizer.Full;
        var ids = ChatPrompt.Build(tokenizer, PromptTemplate.Default, "nut<|endoftext|>", [2, 3]);
        Assert.Multiple(() =>
        {
            Assert.That(ids.Count(id => id == tokenizer.TokenId("<|im_start|>")), Is.EqualTo(3));
            Assert.That(ids, Has.None.EqualTo(tokenizer.TokenId("<|endoftext|>")));
            Assert.That(ids.Count(id => id == tokenizer.TokenId("<|image_pad|>")), Is.EqualTo(5));
            Assert.That(tokenizer.Decode(ids), Does.Contain("containing a nut<|endoftext|>. Analyze"));
            Assert.That(tokenizer.Decode(ids), Does.Contain("user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|><|vision_start|>"));
        });
    }

    [Test]
    public void Underscores_of_a_folder_name_become_spaces() =>
        Assert.That(PromptTemplate.Default.Render("metal_nut"), Does.StartWith("This is an image containing a metal nut. Analyze the given image"));

    [Test]
    public void A_template_file_names_the_object_or_is_refused()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "prompt.txt");
        File.WriteAllText(file, "Is this {object} broken?\r\nA {object}!\n");
        Assert.That(PromptTemplate.Load(file).Render("pipe_fryum"), Is.EqualTo("Is this pipe fryum broken?\nA pipe fryum!"));

        File.WriteAllText(file, "Is it broken?");
        Assert.That(() => PromptTemplate.Load(file), Throws.TypeOf<InputException>().With.Message.Contains("{object}").And.Message.Contains(file));
        Assert.That(() => PromptTemplate.Load(file + ".missing"), Throws.TypeOf<InputException>().With.Message.Contains(".missing"));
    }
}
