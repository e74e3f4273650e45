using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>The operations that are a product and little else: patches, the merger, attention's output; and the embedding.</summary>
internal sealed class LinearTests
{
    private static readonly TestCaseData<int, int, int, ElementType>[] Shapes =
    [
        new(40, 384, 384, ElementType.BFloat16),
        new(7, 1176, 160, ElementType.BFloat16),
        new(131, 37, 19, ElementType.Float32),
        new(1, 1, 1, ElementType.BFloat16),
        new(13, 600, 65, ElementType.Float32),
    ];

    [TestCaseSource(nameof(Shapes))]
    public void Patch_embedding_equals_the_oracle(int rows, int inputs, int outputs, ElementType type)
    {
        using var device = new Device();
        var random = new Random(rows);
        var (weight, pixels) = (new LinearCase(random, inputs, outputs, type, bias: false), Reference.Normal(random, rows * inputs, 1f));
        var x = device.New(rows, outputs);
        device.Backend.PatchEmbed(device.Put(pixels, rows), weight.On(device).Weight, x);
        Assert.That(device.Get(x), Is.EqualTo(LayerOracle.Linear(weight, Reference.Widen(pixels))).Within(1e-5));
    }

    [TestCaseSource(nameof(Shapes))]
    public void Attention_output_and_its_gradient_equal_the_oracle(int rows, int inputs, int outputs, ElementType type)
    {
        using var device = new Device();
        var random = new Random(rows);
        var weights = new LinearCase(random, inputs, outputs, type);
        var (o, x, dy) = (Reference.Normal(random, rows * inputs, 1f), Reference.Normal(random, rows * outputs, 1f), Reference.Normal(random, rows * outputs, 1f));
        var (y, dO) = (device.New(rows, outputs), device.New(rows, inputs));
        device.Backend.ProjectOut(device.Put(o, rows), weights.On(device), device.Put(x, rows), y);
        device.Backend.ProjectOutBackward(device.Put(dy, rows), weights.On(device), dO);
        var place = device.Put(x, rows);
        device.Backend.ProjectOut(device.Put(o, rows), weights.On(device), place, place);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(device.Get(y), Is.EqualTo(Oracle(Reference.Widen(o))).Within(1e-5));
            Matrix.AssertSame(device.Get(place), device.Get(y), "in place");
            Assert.That(Reference.GradientError(moved => Matrix.Dot(Oracle(moved), dy), Reference.Widen(o), device.Get(dO), null, random, 8), Is.LessThan(2e-6));
        }

        double[] Oracle(double[] input) => [.. LayerOracle.Linear(weights, input).Zip(x, (a, b) => a + b)];
    }

    [TestCase(3, 160, 640, 384, ElementType.BFloat16)]
    [TestCase(17, 5, 23, 9, ElementType.Float32)]
    [TestCase(1, 1, 4, 1, ElementType.BFloat16)]
    public void Merging_patches_equals_the_oracle_for_every_token_alone_as_for_all(int tokens, int embed, int inner, int outputs, ElementType type)
    {
        using var device = new Device();
        var random = new Random(tokens);
        var norm = new NormCase(random, NormKind.Layer, embed, type);
        var (first, second) = (new LinearCase(random, 4 * embed, inner, type), new LinearCase(random, inner, outputs, type));
        var x = Reference.Normal(random, tokens * 4 * embed, 2f);
        var weights = new MergerWeights(norm.On(device), first.On(device), second.On(device));
        var all = Merge(x);
        var hidden = LayerOracle.Linear(first, LayerOracle.Norm(norm, Reference.Widen(x)));
        Assert.That(all, Is.EqualTo(LayerOracle.Linear(second, [.. hidden.Select(LayerOracle.Gelu)])).Within(1e-5));
        for (var token = 0; token < tokens; token++)
        {
            Matrix.AssertSame(Merge(Matrix.Rows(x, 4 * embed, [token])), Matrix.Rows(all, outputs, [token]), $"token {token}");
        }

        float[] Merge(float[] patches)
        {
            var features = device.New(patches.Length / embed / 4, outputs);
            device.Backend.MergePatches(device.Put(patches, patches.Length / embed), weights, features);
            return device.Get(features);
        }
    }

    [Test]
    public void Embedding_takes_tokens_from_the_table_and_image_tokens_from_the_features([Values] ElementType type)
    {
        using var device = new Device();
        var random = new Random(1);
        var (table, features) = (Matrix.Rounded(Reference.Normal(random, 30 * 11, 1f), type), Reference.Normal(random, 4 * 11, 1f));
        var x = device.New(6, 11);
        device.Backend.Embed(device.Put([3, -1, 29, -4, 0, 3]), device.Put(table, 30, type), device.Put(features, 4), x);
        Matrix.AssertSame(device.Get(x), [.. Matrix.Rows([.. table, .. features], 11, [3, 30, 29, 33, 0, 3])], "x");
    }

    [TestCase(30, "token 30 of 30")]
    [TestCase(-5, "image feature 4 of 4")]
    public void Embedding_names_an_id_that_does_not_exist(int id, string words)
    {
        using var device = new Device();
        var (table, features, x) = (device.New(30, 8), device.New(4, 8), device.New(1, 8));
        Assert.That(() => device.Backend.Embed(device.Put([id]), table, features, x), Throws.InstanceOf<ArgumentException>().With.Message.Contains(words));
    }
}
