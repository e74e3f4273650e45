namespace LrIad.Engine.Constrain;

/// <summary>Hopcroft's algorithm: states that the same texts lead from to the end become one. The automaton must be trimmed; what leads nowhere is no state.</summary>
internal sealed class Minimizer
{
    private readonly Dfa _dfa;
    private readonly Predecessors _before;

    // Blocks are runs of _order; within a block the marked states come first.
    private readonly int[] _order;
    private readonly int[] _place;
    private readonly int[] _block;
    private readonly List<(int Start, int End, int Marked)> _blocks = [];
    private readonly Stack<int> _splitters = new();

    private Minimizer(Dfa dfa)
    {
        _dfa = dfa;
        _before = new Predecessors(dfa.Table, dfa.Count, dfa.Classes.Count);
        _order = [.. Enumerable.Range(0, dfa.Count).OrderBy(state => dfa.Accepts(state))];
        _place = new int[dfa.Count];
        _block = new int[dfa.Count];
        var rejecting = _order.Count(state => !dfa.Accepts(state));
        foreach (var (start, end) in new[] { (0, rejecting), (rejecting, dfa.Count) }.Where(block => block.Item1 < block.Item2))
        {
            NewBlock(start, end);
            _splitters.Push(_blocks.Count - 1);
        }
    }

    public static Dfa Run(Dfa dfa, CancellationToken cancellation = default)
    {
        var run = new Minimizer(dfa);
        while (run._splitters.TryPop(out var splitter))
        {
            cancellation.ThrowIfCancellationRequested();
            var (start, end, _) = run._blocks[splitter];
            var targets = run._order[start..end];
            for (var c = 0; c < dfa.Classes.Count; c++)
            {
                run.SplitBy(targets, c);
            }
        }

        return run.Quotient();
    }

    // Of each block, the states that a byte of the class leads to the targets part from those it does not.
    private void SplitBy(int[] targets, int byteClass)
    {
        var touched = new List<int>();
        foreach (var target in targets)
        {
            foreach (var source in _before.Of(target, byteClass))
            {
                Mark(source, touched);
            }
        }

        foreach (var block in touched)
        {
            var (start, end, marked) = _blocks[block];
            _blocks[block] = (start, end, 0);
            if (marked == end - start)
            {
                continue;
            }

            // The smaller part becomes a new block, and a splitter; the rest keeps the block's number and still waits as one if the block did.
            var cut = start + marked;
            var smaller = marked <= end - cut ? (start, cut) : (cut, end);
            _blocks[block] = smaller.Item1 == start ? (cut, end, 0) : (start, cut, 0);
            NewBlock(smaller.Item1, smaller.Item2);
            _splitters.Push(_blocks.Count - 1);
        }
    }

    private void Mark(int state, List<int> touched)
    {
        var (start, end, marked) = _blocks[_block[state]];
        var to = start + marked;
        if (_place[state] < to)
        {
            return;
        }

        if (marked == 0)
        {
            touched.Add(_block[state]);
        }

        var (other, from) = (_order[to], _place[state]);
        (_order[to], _order[from]) = (state, other);
        (_place[state], _place[other]) = (to, from);
        _blocks[_block[state]] = (start, end, marked + 1);
    }

    private void NewBlock(int start, int end)
    {
        for (var i = start; i < end; i++)
        {
            _place[_order[i]] = i;
            _block[_order[i]] = _blocks.Count;
        }

        _blocks.Add((start, end, 0));
    }

    private Dfa Quotient()
    {
        var classes = _dfa.Classes.Count;
        var table = new int[_blocks.Count * classes];
        var accepts = new bool[_blocks.Count];
        for (var block = 0; block < _blocks.Count; block++)
        {
            var state = _order[_blocks[block].Start];
            accepts[block] = _dfa.Accepts(state);
            for (var c = 0; c < classes; c++)
            {
                var next = _dfa.Table[(state * classes) + c];
                table[(block * classes) + c] = next == Dfa.Dead ? Dfa.Dead : _block[next];
            }
        }

        return new Dfa(_block[_dfa.Start], _dfa.Classes, table, accepts);
    }
}
