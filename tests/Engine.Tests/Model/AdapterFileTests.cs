using System.Buffers.Binary;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Model;

/// <summary>PEFT adapter folders: read in every form PEFT writes, refused where anything would silently do nothing.</summary>
internal sealed class AdapterFileTests
{
    private const string Weights = "adapter_model.safetensors";
    private const string Settings = "adapter_config.json";

    private static readonly ModelGeometry Geometry = ModelGeometry.Read(Path.Combine(TestFiles.TinyModel, "config.json"));

    [Test]
    public void An_adapter_that_PEFT_wrote()
    {
        var adapter = AdapterFile.Load(Path.Combine(TestFiles.Goldens, "adapter"), Geometry);
        var set = TensorSet.Read(Path.Combine(TestFiles.Goldens, "adapter", Weights));
        using (Assert.EnterMultipleScope())
        {
            Assert.That((adapter.Rank, adapter.Scale, adapter.MaxPixels, adapter.Factors.Count), Is.EqualTo((4, 4.0, (int?)null, 4)));
            Assert.That(adapter.Factors[2].ValueB, Is.EqualTo(Floats(set.Tensors[AdapterFile.Key(2, "v_proj", "B")])));
            Assert.That(adapter.Effective()[3].QueryB, Is.EqualTo(adapter.Factors[3].QueryB.Select(value => value * 4)));
            Assert.That(adapter.Effective()[3].QueryA, Is.EqualTo(adapter.Factors[3].QueryA));
        }
    }

    [TestCase("language_model.", "")]
    [TestCase("x", "x")]
    public void Old_and_new_names_give_the_same(string part, string instead)
    {
        var folder = NewAdapter(set => set.Rename(name => name.Replace(part, instead, StringComparison.Ordinal)));
        Assert.That(Flat(AdapterFile.Load(folder, Geometry)), Is.EqualTo(Flat(Golden())));
    }

    [Test]
    public void Half_precision_is_read()
    {
        var expected = Flat(Golden());
        var halves = NewAdapter(set => Change(set, tensor => RawTensor.Float16(tensor.Shape, [.. Floats(tensor).Select(value => (Half)value)])));
        var brains = NewAdapter(set => Change(set, tensor => new RawTensor("BF16", tensor.Shape, [.. Floats(tensor).SelectMany(value => BitConverter.GetBytes(Numbers.ToBFloat16(value)))])));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Flat(AdapterFile.Load(halves, Geometry)), Is.EqualTo(expected.Select(value => (float)(Half)value)));
            Assert.That(Flat(AdapterFile.Load(brains, Geometry)), Is.EqualTo(expected.Select(value => Numbers.FromBFloat16(Numbers.ToBFloat16(value)))));
        }

        static void Change(TensorSet set, Func<RawTensor, RawTensor> change)
        {
            foreach (var (name, tensor) in set.Tensors.ToArray())
            {
                set.Tensors[name] = change(tensor);
            }
        }
    }

    private static IEnumerable<TestCaseData> Scales()
    {
        yield return new TestCaseData((Action<JsonObject>)(root => root["lora_alpha"] = 6.5), 6.5 / 4).SetArgDisplayNames("alpha / r");
        yield return new TestCaseData((Action<JsonObject>)(root => root["use_rslora"] = true), 16 / 2.0).SetArgDisplayNames("rank-stabilised");
        yield return new TestCaseData((Action<JsonObject>)(root => root.Remove("lora_alpha")), 8 / 4.0).SetArgDisplayNames("PEFT's default");
    }

    [TestCaseSource(nameof(Scales))]
    public void Scale(Action<JsonObject> change, double expected) => Assert.That(AdapterFile.Load(NewAdapter(settings: change), Geometry).Scale, Is.EqualTo(expected));

    [Test]
    public void What_is_saved_is_loaded_again()
    {
        var adapter = Golden();
        var folder = TestFiles.NewFolder();
        Save(folder, adapter.Factors);
        var again = AdapterFile.Load(folder, Geometry);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Flat(again), Is.EqualTo(Flat(adapter)));
            Assert.That((again.Rank, again.Scale, again.MaxPixels), Is.EqualTo((4, 2.5, 200_704)));
        }
    }

    [Test]
    public void What_is_saved_has_the_form_PEFT_reads()
    {
        var folder = TestFiles.NewFolder();
        Save(folder, Golden().Factors);
        var bytes = File.ReadAllBytes(Path.Combine(folder, Weights));
        var header = JsonNode.Parse(bytes.AsSpan(8, (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes)))!.AsObject();
        var settings = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, Settings)))!.AsObject();
        var known = JsonNode.Parse(File.ReadAllText(Path.Combine(TestFiles.Goldens, "adapter", Settings)))!.AsObject();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(header["__metadata__"]!.ToJsonString(), Is.EqualTo("""{"format":"pt"}"""));
            Assert.That(header.Select(pair => pair.Key).Where(key => key != "__metadata__"), Is.EquivalentTo(TensorSet.Read(Path.Combine(TestFiles.Goldens, "adapter", Weights)).Tensors.Keys));
            Assert.That(settings.Select(pair => pair.Key), Is.SubsetOf(known.Select(pair => pair.Key)), "PEFT refuses fields it does not know");
            Assert.That(((int)settings["r"]!, (double)settings["lora_alpha"]!, (string)settings["peft_type"]!, (string)settings["base_model_name_or_path"]!), Is.EqualTo((4, 10.0, "LORA", "base")));
            Assert.That(settings["target_modules"]!.AsArray().Select(name => (string)name!), Is.EquivalentTo((string[])["q_proj", "v_proj"]));
        }
    }

    private static IEnumerable<TestCaseData> Faults()
    {
        var (first, query) = (AdapterFile.Key(0, "q_proj", "A"), AdapterFile.Key(3, "q_proj", "B"));
        yield return Weight("missing matrix", set => set.Tensors.Remove(query), query, "missing");
        yield return Weight("one matrix too many", set => set.Tensors[AdapterFile.Key(0, "k_proj", "A")] = set.Tensors[first], "k_proj");
        yield return Weight("a layer too many", set => set.Tensors[AdapterFile.Key(4, "q_proj", "A")] = set.Tensors[first], "layers.4.");
        yield return Weight("old beside new", set => set.Tensors[first.Replace("language_model.", "", StringComparison.Ordinal)] = set.Tensors[first], "match nothing");
        yield return Weight("names of another model", set => set.Rename(name => name.Replace("self_attn", "attention", StringComparison.Ordinal)), "missing");
        yield return Weight("another shape", set => set.Tensors[query] = set.Tensors[query] with { Shape = [4, 384] }, query, "[4, 384]", "[384, 4]");
        yield return Weight("integers", set => set.Tensors[query] = set.Tensors[query] with { Type = "I32" }, query, "I32");
        yield return Weight("not finite", set => set.Tensors[query] = RawTensor.Float32([384, 4], [.. Enumerable.Repeat(float.NaN, 384 * 4)]), query, "not finite");
        yield return Setting("another rank", root => root["r"] = 8, first, "[4, 384]", "[8, 384]");
        yield return Setting("rank is nothing", root => root["r"] = 0, "r must be");
        yield return Setting("other target", root => root["target_modules"] = new JsonArray("q_proj", "v_proj", "o_proj"), "target_modules", "o_proj");
        yield return Setting("target is a number", root => root["target_modules"] = 3, "target_modules");
        yield return Setting("ranks by layer", root => root["rank_pattern"] = new JsonObject { ["q_proj"] = 8 }, "rank_pattern");
        yield return Setting("alphas by layer", root => root["alpha_pattern"] = new JsonObject { ["q_proj"] = 8 }, "alpha_pattern");
        yield return Setting("another kind", root => root["peft_type"] = "IA3", "plain LoRA");
        yield return Setting("DoRA", root => root["use_dora"] = true, "DoRA");
        yield return Setting("biases", root => root["bias"] = "all", "bias");
        yield return Setting("changes the base", root => root["init_lora_weights"] = "pissa", "PiSSA");
        yield return Setting("activated", root => root["alora_invocation_tokens"] = new JsonArray(1, 2), "activated");
        yield return Case("no settings", folder => File.Delete(Path.Combine(folder, Settings)), Settings);
        yield return Case("no weights", folder => File.Delete(Path.Combine(folder, Weights)), Weights, "does not exist");
        yield return Case("settings are no JSON", folder => File.WriteAllText(Path.Combine(folder, Settings), "{"), Settings, "JSON");
        yield return Case("max_pixels is text", folder => File.WriteAllText(Path.Combine(folder, "lriad.json"), """{"max_pixels":"many"}"""), "lriad.json", "max_pixels");

        static TestCaseData Weight(string name, Action<TensorSet> change, params string[] told) => Case(name, folder => Edit(folder, change), told);
        static TestCaseData Setting(string name, Action<JsonObject> change, params string[] told) => Case(name, folder => EditSettings(folder, change), told);
        static TestCaseData Case(string name, Action<string> change, params string[] told) => new TestCaseData(change, told).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Faults))]
    public void Says_what_is_wrong(Action<string> change, string[] told)
    {
        var folder = NewAdapter();
        change(folder);
        var message = Assert.Throws<InputException>(() => AdapterFile.Load(folder, Geometry))!.Message;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(message, Does.Contain(folder));
            foreach (var part in told)
            {
                Assert.That(message, Does.Contain(part));
            }
        }
    }

    private static Adapter Golden() => AdapterFile.Load(Path.Combine(TestFiles.Goldens, "adapter"), Geometry);

    private static void Save(string folder, IReadOnlyList<LayerFactors> factors) => AdapterFile.Save(
        folder, factors, AdapterWeights.ShapeFor(Geometry, 4), new LoraOptions { Rank = 4, Alpha = 10, Dropout = 0.05f }, "base", 200_704,
        (file, contents) =>
        {
            using var stream = File.Create(file);
            contents(stream);
        });

    private static string NewAdapter(Action<TensorSet>? weights = null, Action<JsonObject>? settings = null)
    {
        var folder = TestFiles.NewFolder();
        foreach (var name in new[] { Weights, Settings })
        {
            File.Copy(Path.Combine(TestFiles.Goldens, "adapter", name), Path.Combine(folder, name));
        }

        Edit(folder, weights ?? (_ => { }));
        EditSettings(folder, settings ?? (_ => { }));
        return folder;
    }

    private static void Edit(string folder, Action<TensorSet> change)
    {
        var set = TensorSet.Read(Path.Combine(folder, Weights));
        change(set);
        set.Write(Path.Combine(folder, Weights));
    }

    private static void EditSettings(string folder, Action<JsonObject> change)
    {
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, Settings)))!.AsObject();
        change(json);
        File.WriteAllText(Path.Combine(folder, Settings), json.ToJsonString());
    }

    private static float[] Floats(RawTensor tensor) => System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(tensor.Bytes).ToArray();

    private static float[] Flat(Adapter adapter) => [.. adapter.Factors.SelectMany(layer => layer.QueryA.Concat(layer.QueryB).Concat(layer.ValueA).Concat(layer.ValueB))];
}
