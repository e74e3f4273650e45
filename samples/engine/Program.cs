using EngineSample;
using LrIad.Engine;
using LrIad.Engine.Serving;

if (args.Length is not (3 or 4))
{
    await Console.Error.WriteLineAsync("usage: EngineSample MODEL IMAGE OBJECT [ADAPTER]");
    return 2;
}

try
{
    await using var engine = InferenceEngine.Load(new EngineOptions { Model = args[0] });
    Console.WriteLine($"{engine.Model.Name} on {engine.Model.Device}");

    var bytes = await File.ReadAllBytesAsync(args[1]);
    var image = new ImageData(bytes, args[1]);
    if (args.Length == 4)
    {
        await Examples.Adapter(engine, args[3], image, args[2]);
    }

    await Examples.Inspect(engine, image, args[2]);
    await Examples.Stream(engine, image);
    await Examples.Constrain(engine, image);
    await Examples.Score(engine, image);
    await Examples.Chat(engine, bytes);
    await Examples.Pipeline(engine, bytes);
    await Examples.Typed(engine, bytes);
    return 0;
}
catch (Exception e) when (e is InputException or IOException)
{
    await Console.Error.WriteLineAsync(e.Message);
    return 2;
}
