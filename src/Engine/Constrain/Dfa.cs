namespace LrIad.Engine.Constrain;

/// <summary>A deterministic automaton over bytes.</summary>
internal sealed class Dfa(int start, ByteClasses classes, int[] next, bool[] accepts)
{
    /// <summary>Where no text leads to the end any more.</summary>
    public const int Dead = -1;

    public int Start => start;

    /// <summary>Number of states.</summary>
    public int Count => accepts.Length;

    public ByteClasses Classes => classes;

    /// <summary>The state after each class of bytes: [states, classes].</summary>
    public ReadOnlySpan<int> Table => next;

    public bool Accepts(int state) => accepts[state];

    public int Next(int state, byte b) => next[(state * classes.Count) + classes.Of(b)];

    /// <summary>The state after bytes, or dead.</summary>
    public int Next(int state, ReadOnlySpan<byte> bytes)
    {
        for (var i = 0; i < bytes.Length && state != Dead; i++)
        {
            state = Next(state, bytes[i]);
        }

        return state;
    }

    /// <summary>Whether any byte leads on.</summary>
    public bool Continues(int state) => next.AsSpan(state * classes.Count, classes.Count).ContainsAnyExcept(Dead);

    /// <summary>The same texts as long as only these bytes exist, and no state more from which none of them ends; null where no text is left.</summary>
    public Dfa? Trimmed(Func<byte, bool> exists)
    {
        var (table, usable) = (next.ToArray(), UsableClasses(exists));
        for (var i = 0; i < table.Length; i++)
        {
            table[i] = usable[i % classes.Count] ? table[i] : Dead;
        }

        var live = Live(table);
        if (!live[start])
        {
            return null;
        }

        for (var i = 0; i < table.Length; i++)
        {
            table[i] = table[i] != Dead && live[table[i]] ? table[i] : Dead;
        }

        return new Dfa(start, classes, table, accepts);
    }

    // A class with a byte that does not exist is given up as a whole: every byte of Qwen2's is a token, so nothing is lost by it.
    private bool[] UsableClasses(Func<byte, bool> exists)
    {
        var usable = Enumerable.Repeat(true, classes.Count).ToArray();
        for (var b = 0; b < 256; b++)
        {
            usable[classes.Of((byte)b)] &= exists((byte)b);
        }

        return usable;
    }

    // The states from which an accepting one can be reached, found from there backwards.
    private bool[] Live(int[] table)
    {
        var before = new Predecessors(table, Count, classes.Count);
        var live = accepts.ToArray();
        var pending = new Stack<int>(Enumerable.Range(0, Count).Where(state => accepts[state]));
        while (pending.TryPop(out var state))
        {
            for (var c = 0; c < classes.Count; c++)
            {
                foreach (var source in before.Of(state, c))
                {
                    if (!live[source])
                    {
                        live[source] = true;
                        pending.Push(source);
                    }
                }
            }
        }

        return live;
    }
}

/// <summary>The states that lead to a state by a class of bytes.</summary>
internal sealed class Predecessors
{
    private readonly int _classes;
    private readonly int[] _ends;
    private readonly int[] _sources;

    public Predecessors(ReadOnlySpan<int> table, int states, int classes)
    {
        _classes = classes;
        _ends = new int[(states * classes) + 1];
        for (var i = 0; i < table.Length; i++)
        {
            if (table[i] != Dfa.Dead)
            {
                _ends[(table[i] * classes) + (i % classes) + 1]++;
            }
        }

        for (var i = 1; i < _ends.Length; i++)
        {
            _ends[i] += _ends[i - 1];
        }

        _sources = new int[_ends[^1]];
        var filled = _ends.ToArray();
        for (var i = 0; i < table.Length; i++)
        {
            if (table[i] != Dfa.Dead)
            {
                _sources[filled[(table[i] * classes) + (i % classes)]++] = i / classes;
            }
        }
    }

    public ReadOnlySpan<int> Of(int state, int byteClass)
    {
        var at = (state * _classes) + byteClass;
        return _sources.AsSpan(_ends[at].._ends[at + 1]);
    }
}
