using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;

namespace LrIad.Engine.Tests.Backends;

internal sealed class BackwardPlannerTests
{
    [Test]
    public void Every_key_meets_every_row_that_sees_it_once_from_either_side([Range(0, 19)] int seed, [Values(1, 2)] int pages)
    {
        var random = new Random(seed);
        var c = new AttentionCase(1, 16, random.Next(1, 9), seed, 128);
        for (var group = random.Next(1, 4); group > 0; group--)
        {
            var completions = Enumerable.Range(0, random.Next(1, 7)).Select(_ => random.Next(1, 300)).Select(keys => (keys, random.Next(2) == 0 ? keys : random.Next(1, keys + 1))).ToArray();
            _ = random.Next(3) switch
            {
                0 => c.Full(random.Next(1, 150)),
                1 => c.Prefill(200, random.Next(1, 200)),
                _ => c.Group(random.Next(1, 200), random.Next(2) == 0, completions),
            };
        }

        var expected = c.Items.SelectMany(item => Enumerable.Range(item.FirstRow, item.Rows).SelectMany(row => Enumerable.Range(0, AttentionCase.Visible(item, row)).Select(key => (row, Slot(c.Blocks, item.FirstBlock, key))))).Order().ToArray();
        var rows = new AttentionPlanner();
        rows.PlanRows(c.Items, AttentionPlanner.TileRows / c.PerHead);
        var keys = new BackwardPlanner();
        keys.Plan(c.Items, c.Blocks, c.PerHead, pages);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(rows.Tiles.SelectMany(tile => ByRow(c, rows, tile)).Order(), Is.EqualTo(expected), "tiles of rows");
            Assert.That(keys.Tiles.SelectMany(tile => ByKey(keys, tile)).Order(), Is.EqualTo(expected), "tiles of keys");
            Assert.That(keys.Tiles.Where(tile => tile.Slot < 0).SelectMany(tile => new[] { tile.Block, tile.SecondBlock }).Where(block => block >= 0).Concat(keys.Merges.Select(merge => merge.Block)), Is.Unique.And.EquivalentTo(c.Blocks.Distinct()), "a page has one place where its sum comes from");
            Assert.That(keys.Merges.SelectMany(merge => Enumerable.Range(merge.FirstSlot, merge.Slots)), Is.EqualTo(Enumerable.Range(0, keys.Slots)), "slots");
        }
    }

    private static int Slot(int[] blocks, int firstBlock, int key) => (blocks[firstBlock + (key / KvLayer.BlockSize)] * KvLayer.BlockSize) + (key % KvLayer.BlockSize);

    private static IEnumerable<(int Row, int Slot)> ByRow(AttentionCase c, AttentionPlanner plan, AttendTile tile) =>
        from run in plan.Runs.GetRange(tile.FirstRun, tile.Runs)
        from j in Enumerable.Range(0, tile.Rows)
        from key in Enumerable.Range(0, Math.Min(run.Keys, run.Limit + (run.Step * j)))
        select (tile.Row + j, Slot(c.Blocks, run.FirstBlock, key));

    private static IEnumerable<(int Row, int Slot)> ByKey(BackwardPlanner plan, KeyTile tile) =>
        from run in plan.Runs.GetRange(tile.FirstRun, tile.Runs)
        from j in Enumerable.Range(0, run.Rows)
        from key in Enumerable.Range(0, Math.Min(run.Keys, run.Limit + (run.Step * j)))
        select (run.Row + j, ((key < KvLayer.BlockSize ? tile.Block : tile.SecondBlock) * KvLayer.BlockSize) + (key % KvLayer.BlockSize));
}
