using System.Runtime.InteropServices;

namespace LrIad.Engine.Constrain;

/// <summary>The subset construction: from an automaton that forks to one with a single state at a time, within bounds of states and of work.</summary>
internal sealed class Determinizer
{
    private const int MaxStates = 50_000;
    private const int MaxWork = 20_000_000;

    private readonly Nfa _nfa;
    private readonly ByteClasses _classes;
    private readonly Dictionary<int[], int> _states = new(new SameMembers());
    private readonly Dictionary<int[], int> _known = new(new SameMembers());
    private readonly List<int>[] _targets;
    private readonly List<int[]> _members = [];
    private readonly List<int> _next = [];
    private readonly int[] _seen;
    private readonly Stack<int> _pending = new();
    private int _mark;
    private int _work;

    private Determinizer(Nfa nfa)
    {
        _nfa = nfa;
        _classes = new ByteClasses(Enumerable.Range(0, nfa.Count).Where(state => state != Nfa.End && !nfa.IsFork(state)).Select(state => (nfa.Edge(state).From, nfa.Edge(state).To)));
        _targets = [.. Enumerable.Range(0, _classes.Count).Select(_ => new List<int>())];
        _seen = new int[nfa.Count];
    }

    /// <exception cref="InputException">It would have too many states.</exception>
    public static Dfa Run(Nfa nfa, CancellationToken cancellation = default)
    {
        var run = new Determinizer(nfa);
        run.StateOf([nfa.Start]);
        for (var state = 0; state < run._members.Count; state++)
        {
            cancellation.ThrowIfCancellationRequested();
            run.Expand(state);
        }

        return new Dfa(0, run._classes, [.. run._next], [.. run._members.Select(members => members is [Nfa.End, ..])]);
    }

    private void Expand(int state)
    {
        foreach (var member in _members[state].Where(member => member != Nfa.End))
        {
            var (from, to, target) = _nfa.Edge(member);
            for (var c = _classes.Of(from); c <= _classes.Of(to); c++)
            {
                _targets[c].Add(target);
                Work(1);
            }
        }

        for (var c = 0; c < _classes.Count; c++)
        {
            if (_targets[c].Count > 0)
            {
                var next = StateOf(_targets[c]);
                _next[(state * _classes.Count) + c] = next;
                _targets[c].Clear();
            }
        }
    }

    // The same targets come again and again: what they stand for is found once.
    private int StateOf(List<int> targets)
    {
        targets.Sort();
        if (!_known.GetAlternateLookup<ReadOnlySpan<int>>().TryGetValue(CollectionsMarshal.AsSpan(targets), out var state))
        {
            state = _known[[.. targets]] = StateOfAll(Reached(targets));
            Work(targets.Count);
        }

        return state;
    }

    // The members that targets stand for, forks followed.
    private int[] Reached(List<int> targets)
    {
        _mark++;
        var members = new List<int>();
        targets.ForEach(_pending.Push);
        while (_pending.TryPop(out var member))
        {
            if (_seen[member] == _mark)
            {
                continue;
            }

            _seen[member] = _mark;
            Work(1);
            if (!_nfa.IsFork(member))
            {
                members.Add(member);
            }

            foreach (var fork in _nfa.Fork(member))
            {
                _pending.Push(fork);
            }
        }

        members.Sort();
        return [.. members];
    }

    private int StateOfAll(int[] members)
    {
        if (!_states.TryGetValue(members, out var state))
        {
            state = _states[members] = _members.Count;
            _members.Add(members);
            _next.AddRange(Enumerable.Repeat(Dfa.Dead, _classes.Count));
            Work(members.Length);
        }

        return _members.Count <= MaxStates ? state : throw new InputException($"The constraint is too large: its automaton has more than {MaxStates:N0} states. Take smaller repeat counts or lengths, or fewer alternatives.");
    }

    private void Work(int steps)
    {
        if ((_work += steps) > MaxWork)
        {
            throw new InputException("The constraint is too complex: its automaton would take too long to build. Take smaller repeat counts or lengths, or fewer alternatives.");
        }
    }

    private sealed class SameMembers : IEqualityComparer<int[]>, IAlternateEqualityComparer<ReadOnlySpan<int>, int[]>
    {
        public bool Equals(int[]? x, int[]? y) => x.AsSpan().SequenceEqual(y);

        public bool Equals(ReadOnlySpan<int> alternate, int[] other) => alternate.SequenceEqual(other);

        public int GetHashCode(int[] members) => GetHashCode(members.AsSpan());

        public int GetHashCode(ReadOnlySpan<int> members)
        {
            var hash = new HashCode();
            hash.AddBytes(MemoryMarshal.AsBytes(members));
            return hash.ToHashCode();
        }

        public int[] Create(ReadOnlySpan<int> alternate) => [.. alternate];
    }
}
