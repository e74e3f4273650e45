using LrIad.Engine.Compute;
using LrIad.Engine.Model;

namespace LrIad.Engine.Bench;

internal sealed partial class Benchmark
{
    /// <summary>Groups of completions on their way, as the generator keeps them.</summary>
    private sealed class Sequences : IDisposable
    {
        private readonly Benchmark _owner;
        private readonly int _groupSize;
        private readonly Decoder _decoder;
        private readonly KvCache _cache;
        private readonly KvSegment[] _prompts;
        private readonly List<KvSegment> _completions = [];
        private readonly PackedBatch _batch = new();
        private readonly SampleRow[] _rows;
        private readonly View<SampleRow> _rowsView;
        private readonly Compute.HeadResult _result;
        private readonly int[] _tokens;
        private Tensor _x;
        private int _drawn;

        public Sequences(Benchmark owner, int groups, int groupSize, int maxRows)
        {
            (_owner, _groupSize) = (owner, groupSize);
            var (backend, text) = (owner._backend, owner.Text);
            Arena = backend.CreateArena("benchmark");
            _decoder = new Decoder(owner._model, backend, maxRows);
            var blocks = groups * (KvCache.BlocksFor(PromptTokens) + (groupSize * KvCache.BlocksFor(CompletionTokens + 32)));
            _cache = new KvCache(backend, Arena, ElementType.BFloat16, text.Layers, text.KeyValueHeads, text.HeadDim, blocks);
            _prompts = new KvSegment[groups];
            var count = groups * groupSize;
            _rows = new SampleRow[count];
            _tokens = new int[count];
            _rowsView = Arena.Allocate<SampleRow>(count);
            _result = new Compute.HeadResult(Arena.Allocate<int>(count), Arena.Allocate<float>(count), Arena.Allocate<float>(count), default, default);
        }

        public Arena Arena { get; }

        /// <summary>Computes the prompts of some groups anew.</summary>
        public void Prefill(int first, int count)
        {
            _batch.Clear();
            for (var g = first; g < first + count; g++)
            {
                _prompts[g]?.Dispose();
                _prompts[g] = _cache.NewSegment();
                _rows[g - first] = Sample(_batch.Want(_owner.AddText(_batch, _prompts[g], PromptTokens, g - first)), g);
            }

            _x = _decoder.Forward(_batch, _cache, default, null);
            _drawn = count;
        }

        public void Fork()
        {
            foreach (var prompt in _prompts)
            {
                for (var i = 0; i < _groupSize; i++)
                {
                    _completions.Add(prompt.Fork());
                }
            }
        }

        public void Step()
        {
            _batch.Clear();
            AddStep(_batch, _prompts, _completions, _tokens);
            for (var row = 0; row < _completions.Count; row++)
            {
                _rows[row] = Sample(row, row);
            }

            _x = _decoder.Forward(_batch, _cache, default, null);
            _drawn = _completions.Count;
            Draw();
        }

        public void Draw()
        {
            var rows = _rowsView.Slice(0, _drawn);
            _owner._backend.Upload<SampleRow>(_rows.AsSpan(0, _drawn), rows);
            var result = new Compute.HeadResult(_result.Token.Slice(0, _drawn), _result.LogProb.Slice(0, _drawn), _result.Entropy.Slice(0, _drawn), default, default);
            _owner._backend.Sample(_x, _decoder.Head, rows, result);
            _owner._backend.Download(result.Token, _tokens.AsSpan(0, _drawn));
        }

        public void Dispose()
        {
            _decoder.Dispose();
            Arena.Dispose();
        }

        private SampleRow Sample(int row, int sample) => new(row, 1f, 0, 1f, 1, 2, (uint)sample, (uint)_batch.Count);
    }
}
