using LrIad.Engine.Compute;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Model;

/// <summary>safetensors files: what is true is read, what lies is refused.</summary>
internal sealed class SafeTensorsTests
{
    private const string Good = """{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}""";

    private static IEnumerable<TestCaseData> Lies()
    {
        yield return Lie("not JSON", "{\"a\":", "header");
        yield return Lie("a list", "[]", "header");
        yield return Lie("goes on", Good + "{}", "header");
        yield return Lie("not UTF-8", "{\"\uD800", "header");
        yield return Lie("entry is a number", """{"a":3}""", "header");
        yield return Lie("no shape", """{"a":{"dtype":"F32","data_offsets":[0,32]}}""", "header");
        yield return Lie("shape of fractions", """{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,32]}}""", "header");
        yield return Lie("three offsets", """{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,16,32]}}""", "tensor a");
        yield return Lie("unknown type", """{"a":{"dtype":"F31","shape":[8],"data_offsets":[0,32]}}""", "F31");
        yield return Lie("overlap", """{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[5],"data_offsets":[12,32]}}""", "tensor b overlaps");
        yield return Lie("the same bytes", """{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"b":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}""", "overlaps");
        yield return Lie("hole", """{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}""", "hole of 8 bytes before tensor b");
        yield return Lie("starts late", """{"a":{"dtype":"F32","shape":[7],"data_offsets":[4,32]}}""", "hole of 4 bytes");
        yield return Lie("unused end", """{"a":{"dtype":"F32","shape":[7],"data_offsets":[0,28]}}""", "tensors end at byte");
        yield return Lie("past the end", """{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}""", "tensor a lies outside");
        yield return Lie("negative offset", """{"a":{"dtype":"F32","shape":[9],"data_offsets":[-4,32]}}""", "tensor a lies outside");
        yield return Lie("backwards", """{"a":{"dtype":"F32","shape":[0],"data_offsets":[32,0]}}""", "tensor a lies outside");
        yield return Lie("offset overflows", """{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,9223372036854775807]}}""", "tensor a lies outside");
        yield return Lie("offset too large for 64 bits", """{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,18446744073709551615]}}""", "header");
        yield return Lie("shape overflows", """{"a":{"dtype":"F32","shape":[4294967296,4294967296,8],"data_offsets":[0,32]}}""", "impossible shape");
        yield return Lie("shape wraps to the size", """{"a":{"dtype":"F32","shape":[4611686018427387906,4],"data_offsets":[0,32]}}""", "impossible shape");
        yield return Lie("negative shape", """{"a":{"dtype":"F32","shape":[-2,-4],"data_offsets":[0,32]}}""", "impossible shape");
        yield return Lie("shape and bytes differ", """{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,32]}}""", "tensor a of shape [2, 3]");
        yield return Lie("type and bytes differ", """{"a":{"dtype":"BF16","shape":[8],"data_offsets":[0,32]}}""", "BF16");
        yield return Lie("twice", """{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}""", "tensor a is listed twice");

        static TestCaseData Lie(string name, string header, string told) => new TestCaseData(header, told).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Lies))]
    public void Headers_that_lie_are_refused(string header, string told)
    {
        var file = NewFile(TensorSet.Bytes(header, new byte[32]));
        Assert.That(() => SafeTensors.Open(file), Throws.TypeOf<InputException>().With.Message.Contains(file).And.Message.Contains(told));
    }

    [Test]
    public void A_file_cut_off_anywhere_is_refused()
    {
        var bytes = TensorSet.Bytes(Good, new byte[32]);
        using (SafeTensors.Open(NewFile(bytes)))
        {
        }

        for (var length = 0; length < bytes.Length; length++)
        {
            var file = NewFile(bytes[..length]);
            Assert.That(() => SafeTensors.Open(file), Throws.TypeOf<InputException>(), $"{length} bytes");
        }
    }

    [Test]
    public void A_header_of_more_than_100_MB_is_refused_unread()
    {
        var file = NewFile([1, 225, 245, 5, 0, 0, 0, 0]);
        using (var stream = File.OpenWrite(file))
        {
            stream.SetLength(100_000_100);
        }

        Assert.That(() => SafeTensors.Open(file), Throws.TypeOf<InputException>().With.Message.Contains("100,000,001"));
    }

    [Test]
    public void Damaged_headers_never_do_worse_than_an_error()
    {
        var random = new Random(7);
        var good = TensorSet.Bytes(Good, new byte[32]);
        var file = NewFile(good);
        for (var i = 0; i < 1500; i++)
        {
            var bytes = (byte[])good.Clone();
            for (var damage = random.Next(1, 4); damage > 0; damage--)
            {
                // Digits most of all: they are what leads outside.
                bytes[random.Next(bytes.Length - 32)] = random.Next(3) > 0 ? (byte)random.Next('0', '9' + 1) : (byte)random.Next(256);
            }

            File.WriteAllBytes(file, bytes);
            try
            {
                using var tensors = SafeTensors.Open(file);
                foreach (var name in tensors.Names)
                {
                    tensors.Read(name);
                }
            }
            catch (InputException)
            {
            }
        }
    }

    [Test]
    public void Float_types_are_read()
    {
        float[] values = [1.5f, -0.25f, 0, 65504, 3.0517578e-05f, float.NegativeInfinity];
        var set = new TensorSet();
        set.Tensors["f32"] = RawTensor.Float32([2, 3], values);
        set.Tensors["f16"] = RawTensor.Float16([2, 3], [.. values.Select(value => (Half)value)]);
        set.Tensors["bf16"] = new RawTensor("BF16", [2, 3], [.. values.SelectMany(value => BitConverter.GetBytes(Numbers.ToBFloat16(value)))]);
        set.Tensors["nothing"] = RawTensor.Float32([0, 4]);
        set.Tensors["number"] = RawTensor.Float32([], 4);
        var file = NewFile([]);
        set.Write(file);
        using var tensors = SafeTensors.Open(file);
        var part = new float[3];
        tensors.Read("f16", 2, part);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(tensors.Read("f32"), Is.EqualTo(values));
            Assert.That(tensors.Read("f16"), Is.EqualTo(values));
            Assert.That(tensors.Read("bf16"), Is.EqualTo(values.Select(value => Numbers.FromBFloat16(Numbers.ToBFloat16(value)))));
            Assert.That(part, Is.EqualTo(values[2..5]));
            Assert.That(tensors.Read("nothing"), Is.Empty);
            Assert.That(tensors.Read("number"), Is.EqualTo((float[])[4]));
            Assert.That(() => tensors.ReadIntegers("f32"), Throws.TypeOf<InputException>());
            Assert.That(() => tensors.View("f32"), Throws.TypeOf<InputException>());
            Assert.That(() => tensors.Read("f32", 4, new float[3]), Throws.InstanceOf<ArgumentException>());
        }
    }

    [Test]
    public void What_is_written_is_read_again()
    {
        (string Name, int[] Shape, float[] Values)[] written = [("w", [2, 2], [1, 2, 3, 4]), ("b", [1], [float.Epsilon]), ("a\"ä", [3], [-1, 0, 1]), ("none", [0], [])];
        using var stream = new MemoryStream();
        SafeTensorsWriter.Write(stream, written);
        using var tensors = SafeTensors.Open(NewFile(stream.ToArray()));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(tensors.Names, Is.EquivalentTo(written.Select(tensor => tensor.Name)));
            foreach (var (name, shape, values) in written)
            {
                Assert.That(tensors.Read(name), Is.EqualTo(values));
                Assert.That(tensors.Shape(name), Is.EqualTo(shape));
            }
        }
    }

    private static string NewFile(byte[] bytes)
    {
        var file = Path.Combine(TestFiles.NewFolder(), "x.safetensors");
        File.WriteAllBytes(file, bytes);
        return file;
    }
}
