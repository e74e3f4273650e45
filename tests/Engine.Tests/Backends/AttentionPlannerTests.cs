using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;

namespace LrIad.Engine.Tests.Backends;

/// <summary>The plan that the GPU's attention goes by: every row sees each of its keys once, whichever way the list is cut.</summary>
internal sealed class AttentionPlannerTests
{
    [Test]
    public void Every_row_sees_every_key_of_its_items_once([Values(1, 3, 7)] int perHead, [Range(0, 19)] int seed)
    {
        var random = new Random(seed);
        var c = new AttentionCase(1, 8, 1, seed, 96);
        for (var group = random.Next(1, 5); group > 0; group--)
        {
            var completions = Enumerable.Range(0, random.Next(1, 6)).Select(_ => random.Next(1, 200)).Select(keys => (keys, seed % 2 == 0 ? 1 : random.Next(1, keys + 1))).ToArray();
            _ = random.Next(seed % 2 == 0 ? 1 : 4) switch
            {
                0 => c.Group(random.Next(1, 300), false, completions),
                1 => c.Full(random.Next(1, 200)),
                2 => c.Prefill(250, random.Next(1, 250)),
                _ => c.Group(random.Next(1, 100), true, completions),
            };
        }

        var planner = new AttentionPlanner();
        planner.Plan(c.Items, perHead, wideRows: 128);
        var (seen, slotOwner, finished) = (Enumerable.Range(0, c.Rows).Select(_ => new List<int>()).ToArray(), new Dictionary<int, int>(), new List<int>());
        foreach (var tile in planner.Tiles)
        {
            Assert.That(tile.Rows * perHead, Is.LessThanOrEqualTo(tile.Slot < 0 ? 128 : AttentionPlanner.TileRows));
            for (var j = 0; j < tile.Rows; j++)
            {
                foreach (var run in planner.Runs.GetRange(tile.FirstRun, tile.Runs))
                {
                    for (var key = 0; key < Math.Min(run.Keys, run.Limit + (run.Step * j)); key++)
                    {
                        seen[tile.Row + j].Add((c.Blocks[run.FirstBlock + (key / KvLayer.BlockSize)] * KvLayer.BlockSize) + (key % KvLayer.BlockSize));
                    }
                }

                if (tile.Slot < 0)
                {
                    finished.Add(tile.Row + j);
                }
                else
                {
                    slotOwner.Add(tile.Slot + j, tile.Row + j);
                }
            }
        }

        foreach (var merge in planner.Merges)
        {
            var parts = planner.Parts.GetRange(merge.FirstPart, merge.Parts);
            Assert.That(parts.Select(slot => slotOwner[slot]), Is.All.EqualTo(merge.Row).And.Exactly(merge.Parts).Items);
            finished.Add(merge.Row);
        }

        using (Assert.EnterMultipleScope())
        {
            Assert.That(finished.Order(), Is.EqualTo(Enumerable.Range(0, c.Rows)), "rows with a result");
            Assert.That(slotOwner.Keys.Order(), Is.EqualTo(Enumerable.Range(0, planner.Slots)).And.EquivalentTo(planner.Parts), "slots that are written and merged");
            for (var row = 0; row < c.Rows; row++)
            {
                var expected = c.Items.Where(item => row >= item.FirstRow && row < item.FirstRow + item.Rows)
                    .SelectMany(item => Enumerable.Range(0, AttentionCase.Visible(item, row)).Select(key => (c.Blocks[item.FirstBlock + (key / KvLayer.BlockSize)] * KvLayer.BlockSize) + (key % KvLayer.BlockSize)));
                Assert.That(seen[row].Order(), Is.EqualTo(expected.Order()), $"keys of row {row}");
            }
        }
    }
}
