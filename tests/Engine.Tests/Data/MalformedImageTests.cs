using System.Buffers.Binary;
using LrIad.Engine.Data;

namespace LrIad.Engine.Tests.Data;

/// <summary>Files that are cut, changed, or say things that are not so: an error that names the file, or the whole picture, and nothing between.</summary>
internal sealed class MalformedImageTests
{
    private static IReadOnlyList<PillowVector> Vectors => PillowVector.All;

    private static string Fails(string file)
    {
        var error = Assert.Throws<InputException>(() => ImageFile.Read(file));
        Assert.That(error.Message, Does.Contain(file));
        return error.Message;
    }

    private static string FailsWith(string name, byte[] content) => Fails(Files.Write(Path.Combine(TestFiles.NewFolder(), name), content));

    [Test]
    public void EmptyMissingAndOtherFiles()
    {
        var folder = TestFiles.NewFolder();
        Assert.That(Fails(Files.Write(Path.Combine(folder, "empty.png"), [])), Does.Contain("is empty"));
        Assert.That(Fails(Path.Combine(folder, "missing.png")), Does.Contain("cannot be read"));
        Assert.That(Fails(folder), Does.Contain("cannot be read"));
        Assert.That(Fails(Files.Write(Path.Combine(folder, "text.jpg"), "no picture, though its name says so")), Does.Contain("not an image"));
        Assert.That(Fails(Files.Write(Path.Combine(folder, "zeros.bmp"), new byte[5000])), Does.Contain("not an image"));
    }

    [TestCaseSource(nameof(Vectors))]
    public void APrefixIsAnErrorOrTheWholePicture(PillowVector vector)
    {
        var file = vector.Write();
        var errors = 0;
        foreach (var part in Enumerable.Range(1, 39).Select(i => vector.File.Length * i / 40).Append(vector.File.Length - 1))
        {
            Files.Write(file, vector.File[..part]);
            try
            {
                Assert.That(ImageFile.Read(file).Data.AsSpan().SequenceEqual(vector.Pixels), $"the first {part} of {vector.File.Length} bytes");
            }
            catch (InputException error)
            {
                Assert.That(error.Message, Does.Contain(file));
                errors++;
            }
        }

        Assert.That(errors, Is.GreaterThanOrEqualTo(20));
    }

    [TestCase("rgb.png")]
    [TestCase("420.jpg")]
    [TestCase("progressive.jpg")]
    [TestCase("rgb.bmp")]
    [TestCase("lossy.webp")]
    [TestCase("lossless.webp")]
    [TestCase("rgb-raw.tif")]
    [TestCase("rgb-tiff_lzw.tif")]
    [TestCase("jpeg.tif")]
    public void HalfAFileIsTruncated(string name)
    {
        var vector = Vectors.Single(vector => vector.Name == name);
        Assert.That(FailsWith(name, vector.File[..(vector.File.Length / 2)]), Does.Contain("truncated"));
    }

    [TestCaseSource(nameof(Vectors))]
    public void ChangedBytesNeverDoMoreThanFail(PillowVector vector)
    {
        var random = new Random(11);
        var file = vector.Write();
        for (var round = 0; round < 40; round++)
        {
            // Headers more often than pixels.
            var changed = (byte[])vector.File.Clone();
            for (var i = random.Next(1, 5); i > 0; i--)
            {
                changed[random.Next(round % 2 == 0 ? Math.Min(200, changed.Length) : changed.Length)] = (byte)random.Next(256);
            }

            Files.Write(file, changed);
            try
            {
                var image = ImageFile.Read(file, maxPixels: 1_000_000);
                Assert.That(image.Data, Has.Length.EqualTo(image.Width * image.Height * 3));
            }
            catch (InputException error)
            {
                Assert.That(error.Message, Does.Contain(file));
            }
        }
    }

    [TestCase("rgb.png")]
    [TestCase("rgb-16.png")]
    [TestCase("420.jpg")]
    [TestCase("progressive.jpg")]
    [TestCase("rgb.bmp")]
    [TestCase("rgb-16-little.tif")]
    [TestCase("grey-16-big.tif")]
    public void AnImageThatSaysItIsHugeTakesNoMemory(string name)
    {
        var file = Files.Write(Path.Combine(TestFiles.NewFolder(), name), WithSize(name, Vectors.Single(vector => vector.Name == name).File, 30_000));
        Fails(file);
        var before = GC.GetAllocatedBytesForCurrentThread();
        var message = Fails(file);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(1_000_000));
        Assert.That(message, Does.Contain("30000 × 30000").And.Contain("64,000,000"));
    }

    // (A JPEG with too few rows and an end marker is filled up, as Pillow does it.)
    [TestCase("rgb.png")]
    [TestCase("rgb.bmp")]
    [TestCase("rgb-16-little.tif")]
    public void AnImageThatSaysItIsLargerThanItIsFails(string name) => FailsWith(name, WithSize(name, Vectors.Single(vector => vector.Name == name).File, 900));

    [Test]
    public void TheLimitIsTheCallers()
    {
        var vector = Vectors.Single(vector => vector.Name == "rgb.png");
        var file = vector.Write();
        Assert.That(ImageFile.Read(file, vector.Width * vector.Height).Width, Is.EqualTo(vector.Width));
        Assert.Throws<InputException>(() => ImageFile.Read(file, (vector.Width * vector.Height) - 1));
    }

    private static byte[] WithSize(string name, byte[] original, int side)
    {
        var bytes = (byte[])original.Clone();
        switch (Path.GetExtension(name))
        {
            case ".png":
                BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(16), side);
                BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(20), side);
                BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(29), Crc32(bytes.AsSpan(12, 17)));
                return bytes;
            case ".bmp":
                BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(18), side);
                BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(22), side);
                return bytes;
            case ".jpg":
                // Start of frame: FF C0 or FF C2, length, precision, height, width.
                var frame = Enumerable.Range(0, bytes.Length).First(i => bytes[i] == 0xFF && bytes[i + 1] is 0xC0 or 0xC2);
                BinaryPrimitives.WriteInt16BigEndian(bytes.AsSpan(frame + 5), (short)side);
                BinaryPrimitives.WriteInt16BigEndian(bytes.AsSpan(frame + 7), (short)side);
                return bytes;
            default:
                // Entries of 12 bytes; width and height come first, as shorts.
                var little = bytes[0] == 'I';
                var first = little ? BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(4)) : BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(4));
                foreach (var entry in new[] { first + 2, first + 14 })
                {
                    var value = bytes.AsSpan(entry + 8);
                    if (little)
                    {
                        BinaryPrimitives.WriteInt16LittleEndian(value, (short)side);
                    }
                    else
                    {
                        BinaryPrimitives.WriteInt16BigEndian(value, (short)side);
                    }
                }

                return bytes;
        }
    }

    private static uint Crc32(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        foreach (var value in bytes)
        {
            crc ^= value;
            for (var bit = 0; bit < 8; bit++)
            {
                crc = (crc >> 1) ^ (0xEDB88320 & (0 - (crc & 1)));
            }
        }

        return ~crc;
    }
}
