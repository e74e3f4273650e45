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

        return new Dfa(0, run._classes, [.. run._next], [.. run._members.Select(members => members[0] == Nfa.End)]);
    }

    // Between two neighbouring bounds of a state's edges all bytes lead to the same.
    private void Expand(int state)
    {
        var edges = _members[state].Where(member => member != Nfa.End).Select(_nfa.Edge).Select(edge => (From: _classes.Of(edge.From), To: _classes.Of(edge.To), edge.Target)).ToArray();
        var row = state * _classes.Count;
        foreach (var from in edges.SelectMany(edge => new[] { edge.From, edge.To + 1 }).Distinct().Order().ToArray())
        {
            var targets = new List<int>();
            var to = _classes.Count;
            foreach (var edge in edges)
            {
                if (edge.From <= from && from <= edge.To)
                {
                    targets.Add(edge.Target);
                    to = Math.Min(to, edge.To + 1);
                }
                else if (edge.From > from)
                {
                    to = Math.Min(to, edge.From);
                }
            }

            Work(edges.Length);
            if (targets.Count > 0)
            {
                var next = StateOf(targets);
                CollectionsMarshal.AsSpan(_next)[(row + from)..(row + to)].Fill(next);
            }
        }
    }

    // The state of all that the targets stand for, a new one where there is none yet.
    private int StateOf(IReadOnlyList<int> targets)
    {
        _mark++;
        var members = new List<int>();
        foreach (var target in targets)
        {
            _pending.Push(target);
        }

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
        var key = members.ToArray();
        if (!_states.TryGetValue(key, out var state))
        {
            state = _states[key] = _members.Count;
            _members.Add(key);
            _next.AddRange(Enumerable.Repeat(Dfa.Dead, _classes.Count));
            Work(key.Length);
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

    private sealed class SameMembers : IEqualityComparer<int[]>
    {
        public bool Equals(int[]? x, int[]? y) => x.AsSpan().SequenceEqual(y);

        public int GetHashCode(int[] members)
        {
            var hash = new HashCode();
            hash.AddBytes(MemoryMarshal.AsBytes(members.AsSpan()));
            return hash.ToHashCode();
        }
    }
}
