using System.Runtime.InteropServices;

namespace LrIad.Engine.Constrain;

/// <summary>
/// Thompson's automaton of a syntax tree, over the bytes of UTF-8. It is built from the end backwards: what follows a node is there when the node is made. So equal ends of
/// alternatives, the last bytes of characters above all, become one.
/// </summary>
internal sealed class Nfa
{
    /// <summary>The state in which a text may end.</summary>
    public const int End = 0;

    private const int MaxStates = 400_000;

    private readonly List<(byte From, byte To, int Target)> _edges = [default];
    private readonly List<List<int>?> _forks = [null];
    private readonly Dictionary<(byte From, byte To, int Target), int> _shared = [];
    private readonly Dictionary<CodePointSet, List<(byte From, byte To)[]>> _sequences = [];
    private int _steps;

    /// <exception cref="InputException">It would have too many states.</exception>
    public Nfa(RegexNode root) => Start = Build(root, End);

    public int Start { get; }

    public int Count => _edges.Count;

    /// <summary>The bytes that lead on from a state and where to; of no meaning for the end and for a fork.</summary>
    public (byte From, byte To, int Target) Edge(int state) => _edges[state];

    /// <summary>The states that a fork stands for, without a byte; none where it is no fork.</summary>
    public ReadOnlySpan<int> Fork(int state) => CollectionsMarshal.AsSpan(_forks[state]);

    public bool IsFork(int state) => _forks[state] is not null;

    // The state from which the node's texts lead to next.
    private int Build(RegexNode node, int next)
    {
        if (++_steps > MaxStates || Count > MaxStates)
        {
            throw new InputException($"The constraint is too large: its automaton would have more than {MaxStates:N0} parts. Take smaller repeat counts or lengths.");
        }

        switch (node)
        {
            case RegexNode.Set set:
                return Characters(set.Points, next);
            case RegexNode.Sequence sequence:
                return sequence.Parts.Reverse().Aggregate(next, (follows, part) => Build(part, follows));
            case RegexNode.Union union:
                return NewFork([.. union.Parts.Select(part => Build(part, next))]);
            case RegexNode.Repeat repeat:
                return Repeated(repeat, next);
            case RegexNode.List list:
                return Listed(list, next);
            default:
                throw new ArgumentException($"{node.GetType().Name} is no syntax node.", nameof(node));
        }
    }

    private int Characters(CodePointSet points, int next)
    {
        if (!_sequences.TryGetValue(points, out var sequences))
        {
            sequences = _sequences[points] = [.. points.Ranges.SelectMany(range => Utf8.Sequences(range.From, range.To))];
        }

        _steps += sequences.Count;
        var starts = sequences.Select(sequence => sequence.Reverse().Aggregate(next, (follows, bytes) => NewEdge(bytes.From, bytes.To, follows))).ToList();
        return starts.Count == 1 ? starts[0] : NewFork(starts);
    }

    private int Repeated(RegexNode.Repeat repeat, int next)
    {
        var entry = next;
        if (repeat.Max is not { } max)
        {
            entry = NewFork([]);
            _forks[entry]!.AddRange([Build(repeat.Body, entry), next]);
        }
        else
        {
            for (var i = repeat.Min; i < max; i++)
            {
                entry = NewFork([Build(repeat.Body, entry), next]);
            }
        }

        for (var i = 0; i < repeat.Min; i++)
        {
            entry = Build(repeat.Body, entry);
        }

        return entry;
    }

    // Two states before each item: nothing stands before it yet, or something, so that it needs the separator.
    private int Listed(RegexNode.List list, int next)
    {
        var (first, later) = (next, next);
        foreach (var item in list.Items.Reverse())
        {
            var after = item.Repeats ? NewFork([later]) : later;
            var alone = Build(item.Body, after);
            var separated = Build(list.Separator, alone);
            if (item.Repeats)
            {
                _forks[after]!.Add(separated);
            }

            (first, later) = item.Required ? (alone, separated) : (NewFork([alone, first]), NewFork([separated, later]));
        }

        return first;
    }

    private int NewEdge(byte from, byte to, int target)
    {
        if (!_shared.TryGetValue((from, to, target), out var state))
        {
            state = _shared[(from, to, target)] = Count;
            _edges.Add((from, to, target));
            _forks.Add(null);
        }

        return state;
    }

    private int NewFork(List<int> targets)
    {
        _edges.Add(default);
        _forks.Add(targets);
        return Count - 1;
    }
}
