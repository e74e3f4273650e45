using System.Buffers;
using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace LrIad.Engine.Learn;

/// <summary>
/// Scalars for TensorBoard: an event file, that is TFRecords (length, its checksum, data, their checksum; CRC-32C, masked, little-endian) each holding one
/// <c>Event</c> message in protocol buffers. All steps are in one file, so a resumed run cuts off what it will log again and goes on in it.
/// </summary>
internal sealed class TensorBoardWriter : IDisposable
{
    /// <summary>Name of the file; TensorBoard looks for "tfevents" in it.</summary>
    public const string FileName = "events.out.tfevents.lriad-fast";

    private const int HeaderSize = 12, ChecksumSize = 4;

    private readonly FileStream _file;
    private readonly TimeProvider _clock;

    /// <param name="folder">Where the file is, or will be.</param>
    /// <param name="step">Steps already done: what was logged later, or cut short by a kill, is cut off.</param>
    /// <param name="clock">Time of the events.</param>
    public TensorBoardWriter(string folder, int step, TimeProvider clock)
    {
        ArgumentNullException.ThrowIfNull(clock);
        _clock = clock;
        _file = new FileStream(Path.Combine(folder, FileName), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
        _file.SetLength(EndOfStep(_file, step));
        _file.Position = _file.Length;
        if (_file.Length == 0)
        {
            Append(new EventMessage(_clock).FileVersion("brain.Event:2"));
        }
    }

    /// <summary>Logs a step's values; they are kept as 32-bit floats.</summary>
    public void Scalars(int step, IEnumerable<(string Tag, double Value)> values) => Append(new EventMessage(_clock).Step(step).Summary(values));

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    /// <summary>The checksum as TFRecords keep it: CRC-32C, rotated, with a constant added.</summary>
    internal static uint MaskedChecksum(ReadOnlySpan<byte> data)
    {
        var crc = uint.MaxValue;
        foreach (var value in data)
        {
            crc = BitOperations.Crc32C(crc, value);
        }

        return BitOperations.RotateRight(~crc, 15) + 0xa282ead8;
    }

    private void Append(EventMessage message)
    {
        var data = message.Bytes;
        var record = new byte[HeaderSize + data.Length + ChecksumSize];
        BinaryPrimitives.WriteInt64LittleEndian(record, data.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), MaskedChecksum(record.AsSpan(0, 8)));
        data.CopyTo(record.AsSpan(HeaderSize));
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(HeaderSize + data.Length), MaskedChecksum(data));
        _file.Write(record);
    }

    // Where the first record starts that is of a later step, or not whole.
    private static long EndOfStep(FileStream file, int step)
    {
        var bytes = new byte[file.Length];
        file.ReadExactly(bytes);
        var end = 0;
        while (RecordAt(bytes.AsSpan(end)) is var data && !data.IsEmpty && EventMessage.StepOf(data) is { } logged && logged <= step)
        {
            end += HeaderSize + data.Length + ChecksumSize;
        }

        return end;
    }

    private static ReadOnlySpan<byte> RecordAt(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeaderSize || BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]) != MaskedChecksum(bytes[..8]))
        {
            return [];
        }

        var length = BinaryPrimitives.ReadInt64LittleEndian(bytes);
        if (length < 0 || length > bytes.Length - HeaderSize - ChecksumSize)
        {
            return [];
        }

        var data = bytes.Slice(HeaderSize, (int)length);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes[(HeaderSize + (int)length)..]) == MaskedChecksum(data) ? data : [];
    }

    /// <summary>An <c>Event</c>: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string), summary = 5 (message).</summary>
    private sealed class EventMessage
    {
        private const byte WallTime = 0x09, StepField = 0x10, Version = 0x1A, SummaryField = 0x2A, ValueField = 0x0A, Tag = 0x0A, SimpleValue = 0x15;

        private readonly ArrayBufferWriter<byte> _bytes = new();

        public EventMessage(TimeProvider clock)
        {
            Put(_bytes, WallTime);
            BinaryPrimitives.WriteDoubleLittleEndian(_bytes.GetSpan(8), clock.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0);
            _bytes.Advance(8);
        }

        public ReadOnlySpan<byte> Bytes => _bytes.WrittenSpan;

        /// <summary>The step of a message that this class wrote; 0 where there is none.</summary>
        public static long? StepOf(ReadOnlySpan<byte> message)
        {
            if (message.Length < 10 || message[0] != WallTime)
            {
                return null;
            }

            long step = 0;
            var at = 10;
            for (var shift = 0; message[9] == StepField && at < message.Length && shift < 64; shift += 7, at++)
            {
                step |= (long)(message[at] & 0x7F) << shift;
                if (message[at] < 0x80)
                {
                    break;
                }
            }

            return step;
        }

        public EventMessage FileVersion(string version)
        {
            Put(_bytes, Version);
            PutBytes(_bytes, Encoding.UTF8.GetBytes(version));
            return this;
        }

        public EventMessage Step(int step)
        {
            Put(_bytes, StepField);
            PutVarint(_bytes, (ulong)step);
            return this;
        }

        public EventMessage Summary(IEnumerable<(string Tag, double Value)> values)
        {
            var (summary, value) = (new ArrayBufferWriter<byte>(), new ArrayBufferWriter<byte>());
            foreach (var (tag, number) in values)
            {
                value.ResetWrittenCount();
                Put(value, Tag);
                PutBytes(value, Encoding.UTF8.GetBytes(tag));
                Put(value, SimpleValue);
                BinaryPrimitives.WriteSingleLittleEndian(value.GetSpan(4), (float)number);
                value.Advance(4);
                Put(summary, ValueField);
                PutBytes(summary, value.WrittenSpan);
            }

            Put(_bytes, SummaryField);
            PutBytes(_bytes, summary.WrittenSpan);
            return this;
        }

        private static void Put(ArrayBufferWriter<byte> target, byte value)
        {
            target.GetSpan(1)[0] = value;
            target.Advance(1);
        }

        private static void PutBytes(ArrayBufferWriter<byte> target, ReadOnlySpan<byte> bytes)
        {
            PutVarint(target, (ulong)bytes.Length);
            target.Write(bytes);
        }

        private static void PutVarint(ArrayBufferWriter<byte> target, ulong value)
        {
            for (; value >= 0x80; value >>= 7)
            {
                Put(target, (byte)(value | 0x80));
            }

            Put(target, (byte)value);
        }
    }
}
