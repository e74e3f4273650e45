using System.Buffers.Binary;
using System.Text;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

/// <summary>Event files, read by an independent reader: records by their checksums, messages by protocol buffers' rules.</summary>
[TestFixture]
internal sealed class TensorBoardTests
{
    [Test]
    public void ChecksumsAreThoseOfTheStandard()
    {
        // CRC-32C's check value (RFC 3720 and others) is that of "123456789".
        Assert.That(Crc32C(Encoding.ASCII.GetBytes("123456789")), Is.EqualTo(0xE3069283));
        var data = new byte[257];
        new Random(1).NextBytes(data);
        for (var length = 0; length < data.Length; length++)
        {
            Assert.That(TensorBoardWriter.MaskedChecksum(data.AsSpan(0, length)), Is.EqualTo(Mask(Crc32C(data.AsSpan(0, length)))));
        }
    }

    [Test]
    public void TheFileBeginsAsTensorFlowsOwnDo()
    {
        var folder = TestFiles.NewFolder();
        new TensorBoardWriter(folder, 0, TimeProvider.System).Dispose();
        var bytes = File.ReadAllBytes(Path.Combine(folder, TensorBoardWriter.FileName));
        Assert.Multiple(() =>
        {
            Assert.That(bytes[..12], Is.EqualTo(new byte[] { 24, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22 }));
            Assert.That(Encoding.ASCII.GetString(bytes[23..^4]), Is.EqualTo("brain.Event:2"));
        });
    }

    [Test]
    public void WhatIsWrittenIsRead()
    {
        var folder = TestFiles.NewFolder();
        using (var writer = new TensorBoardWriter(folder, 0, new Clock(1_700_000_000)))
        {
            writer.Scalars(1, [("train/loss", -0.25), ("train/rewards/format/mean", 1)]);
            writer.Scalars(300, [("größe", 1e30)]);
        }

        var events = Read(folder);
        Assert.Multiple(() =>
        {
            Assert.That(events.Select(e => e.Step), Is.EqualTo(new long[] { 0, 1, 300 }));
            Assert.That(events.Select(e => e.WallTime), Is.All.EqualTo(1_700_000_000.0));
            Assert.That(events[1].Values, Is.EqualTo(new[] { ("train/loss", -0.25f), ("train/rewards/format/mean", 1f) }));
            Assert.That(events[2].Values, Is.EqualTo(new[] { ("größe", 1e30f) }));
        });
    }

    [Test]
    public void AResumedRunCutsOffLaterStepsAndBrokenRecords([Values(0, 1, 5, 40)] int torn)
    {
        var folder = TestFiles.NewFolder();
        var file = Path.Combine(folder, TensorBoardWriter.FileName);
        using (var writer = new TensorBoardWriter(folder, 0, new Clock(1)))
        {
            for (var step = 1; step <= 200; step++)
            {
                writer.Scalars(step, [("loss", step)]);
            }
        }

        using (var stream = File.OpenWrite(file))
        {
            stream.SetLength(stream.Length - torn);
        }

        using (var writer = new TensorBoardWriter(folder, 150, new Clock(2)))
        {
            writer.Scalars(151, [("loss", -151)]);
        }

        var losses = Read(folder).Skip(1).Select(e => e.Values.Single().Value);
        Assert.That(losses, Is.EqualTo(Enumerable.Range(1, 150).Select(step => (float)step).Append(-151)));
    }

    [Test]
    public void AFileOfSomethingElseIsReplaced()
    {
        var folder = TestFiles.NewFolder();
        File.WriteAllText(Path.Combine(folder, TensorBoardWriter.FileName), "not an event file, but long enough for a header");
        new TensorBoardWriter(folder, 7, TimeProvider.System).Dispose();
        Assert.That(Read(folder), Has.Count.EqualTo(1));
    }

    /// <summary>The events of a folder's file; fails where a checksum does not hold.</summary>
    internal static List<Event> Read(string folder)
    {
        ReadOnlySpan<byte> bytes = File.ReadAllBytes(Path.Combine(folder, TensorBoardWriter.FileName));
        var events = new List<Event>();
        while (!bytes.IsEmpty)
        {
            var length = (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes);
            Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]), Is.EqualTo(Mask(Crc32C(bytes[..8]))));
            Assert.That(BinaryPrimitives.ReadUInt32LittleEndian(bytes[(12 + length)..]), Is.EqualTo(Mask(Crc32C(bytes.Slice(12, length)))));
            events.Add(Event.Parse(bytes.Slice(12, length)));
            bytes = bytes[(16 + length)..];
        }

        return events;
    }

    private static uint Crc32C(ReadOnlySpan<byte> data)
    {
        var crc = uint.MaxValue;
        foreach (var value in data)
        {
            crc ^= value;
            for (var bit = 0; bit < 8; bit++)
            {
                crc = (crc & 1) == 0 ? crc >> 1 : (crc >> 1) ^ 0x82F63B78;
            }
        }

        return ~crc;
    }

    private static uint Mask(uint crc) => unchecked(((crc >> 15) | (crc << 17)) + 0xA282EAD8);

    private sealed class Clock(long seconds) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => DateTimeOffset.FromUnixTimeSeconds(seconds);
    }

    internal sealed record Event(double WallTime, long Step, List<(string Tag, float Value)> Values)
    {
        public static Event Parse(ReadOnlySpan<byte> message)
        {
            var (time, step, values) = (0.0, 0L, new List<(string, float)>());
            for (var at = 0; at < message.Length;)
            {
                var field = Field.Next(message, ref at);
                switch (field.Id)
                {
                    case 1:
                        time = BitConverter.UInt64BitsToDouble(field.Number);
                        break;
                    case 2:
                        step = (long)field.Number;
                        break;
                    case 5:
                        for (var inSummary = 0; inSummary < field.Bytes.Length;)
                        {
                            values.Add(Value(Field.Next(field.Bytes, ref inSummary).Bytes));
                        }

                        break;
                    default:
                        break;
                }
            }

            return new Event(time, step, values);
        }

        private static (string, float) Value(ReadOnlySpan<byte> message)
        {
            var at = 0;
            var tag = Encoding.UTF8.GetString(Field.Next(message, ref at).Bytes);
            return (tag, BitConverter.UInt32BitsToSingle((uint)Field.Next(message, ref at).Number));
        }
    }

    private readonly ref struct Field
    {
        public int Id { get; private init; }

        public ulong Number { get; private init; }

        public ReadOnlySpan<byte> Bytes { get; private init; }

        public static Field Next(ReadOnlySpan<byte> message, ref int at)
        {
            var key = Varint(message, ref at);
            var (id, kind) = ((int)(key >> 3), (int)(key & 7));
            var number = kind is 0 ? Varint(message, ref at) : 0;
            var size = kind switch { 1 => 8, 5 => 4, 2 => (int)Varint(message, ref at), _ => 0 };
            var bytes = message.Slice(at, size);
            at += size;
            return kind switch
            {
                1 => new Field { Id = id, Number = BinaryPrimitives.ReadUInt64LittleEndian(bytes) },
                5 => new Field { Id = id, Number = BinaryPrimitives.ReadUInt32LittleEndian(bytes) },
                _ => new Field { Id = id, Number = number, Bytes = bytes },
            };
        }

        private static ulong Varint(ReadOnlySpan<byte> message, ref int at)
        {
            ulong value = 0;
            for (var shift = 0; ; shift += 7)
            {
                value |= (ulong)(message[at] & 0x7F) << shift;
                if (message[at++] < 0x80)
                {
                    return value;
                }
            }
        }
    }
}
