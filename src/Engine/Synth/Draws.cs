using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Synth;

/// <summary>The draws for one defect, a function of seed, category and the defect's number: the same whatever else is made, on however many threads.</summary>
/// <param name="seed">The run's seed.</param>
/// <param name="category">The category's name.</param>
/// <param name="number">Which defect.</param>
internal sealed class Draws(ulong seed, string category, uint number)
{
    // "SYNT": apart from the streams of training.
    private const ulong Stream = 0x53594E54_00000000;

    private readonly uint _category = BinaryPrimitives.ReadUInt32LittleEndian(SHA256.HashData(Encoding.UTF8.GetBytes(category)));
    private uint _next;

    /// <summary>At least 0, below 1.</summary>
    public double Uniform()
    {
        var (high, low, _, _) = Philox.Block(seed ^ Stream, _next++, number, _category, 0);
        return ((((ulong)high << 32) | low) >> 11) * (1.0 / (1UL << 53));
    }

    public double Between(double low, double high) => low + ((high - low) * Uniform());

    /// <summary>A whole number from 0 on.</summary>
    public int Below(int bound) => (int)(Uniform() * bound);

    public bool Chance(double probability) => Uniform() < probability;

    /// <summary>The gamma distribution of shape 2: a sum of two exponential ones.</summary>
    public double Gamma2(double scale) => -scale * (Math.Log(1 - Uniform()) + Math.Log(1 - Uniform()));

    /// <summary>Fisher-Yates.</summary>
    public int[] Shuffle(int count)
    {
        var order = Enumerable.Range(0, count).ToArray();
        for (var i = count - 1; i > 0; i--)
        {
            var j = Below(i + 1);
            (order[i], order[j]) = (order[j], order[i]);
        }

        return order;
    }
}
