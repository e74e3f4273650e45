using LrIad.Engine.Compute;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Rollout;

/// <summary>An image as the decoder sees it.</summary>
/// <param name="Values">Features, row-major [tokens, hidden], as bytes of the backend's activations.</param>
/// <param name="Tokens">Tokens it takes.</param>
/// <param name="Grid">Patches (time, height, width) before merging.</param>
internal sealed record ImageFeatures(byte[] Values, int Tokens, (int T, int H, int W) Grid);

/// <summary>Turns images and an object's name into prompts for the decoder.</summary>
internal sealed class PromptEncoder : IDisposable
{
    private readonly QwenModel _model;
    private readonly Backend _backend;
    private readonly Tokenizer _tokenizer;
    private readonly PromptTemplate _template;
    private readonly VisionEncoder _vision;
    private readonly int _maxPromptLength;

    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="template">The question.</param>
    /// <param name="maxPromptLength">Longest prompt in tokens, images included.</param>
    public PromptEncoder(QwenModel model, Backend backend, Tokenizer tokenizer, PromptTemplate template, int maxPromptLength)
    {
        (_model, _backend, _tokenizer, _template, _maxPromptLength) = (model, backend, tokenizer, template, maxPromptLength);
        _vision = new VisionEncoder(model, backend);
    }

    /// <summary>Computes the features of images, side by side.</summary>
    public ImageFeatures[] Encode(IReadOnlyList<ImagePatches> images)
    {
        ArgumentNullException.ThrowIfNull(images);
        var hidden = _model.Geometry.Text.Hidden;
        using var arena = _backend.CreateArena("image features");
        var features = arena.Allocate(_backend.ActivationType, images.Sum(image => image.MergedTokens), hidden);
        _vision.Encode(images, features);

        var encoded = new ImageFeatures[images.Count];
        var row = 0;
        for (var i = 0; i < images.Count; i++)
        {
            var image = images[i];
            var rows = features.Slice(row, image.MergedTokens).Bytes;
            var values = GC.AllocateUninitializedArray<byte>(rows.Length);
            _backend.Download<byte>(rows, values);
            encoded[i] = new ImageFeatures(values, image.MergedTokens, (image.GridT, image.GridH, image.GridW));
            row += image.MergedTokens;
        }

        return encoded;
    }

    /// <summary>The prompt that asks about one or more images of an object.</summary>
    /// <exception cref="InputException">It is longer than the limit.</exception>
    public EncodedPrompt Build(string objectName, IReadOnlyList<ImageFeatures> images)
    {
        ArgumentNullException.ThrowIfNull(images);
        var ids = ChatPrompt.Build(_tokenizer, _template, objectName, [.. images.Select(image => image.Tokens)]);
        if (ids.Length > _maxPromptLength)
        {
            throw new InputException(
                $"The prompt for '{objectName}' has {ids.Length} tokens, {images.Sum(image => image.Tokens)} of them for its images; the limit is {_maxPromptLength}. Lower --max-pixels or raise --max-prompt-length.");
        }

        return Assemble(ids, images);
    }

    /// <summary>A prompt from its token ids, image tokens in place as many as the images take, and its images.</summary>
    public EncodedPrompt Assemble(int[] ids, IReadOnlyList<ImageFeatures> images)
    {
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(images);
        var (positions, next) = PromptPositions.Compute(ids, [.. images.Select(image => image.Grid)], _model.Geometry);
        var feature = 0;
        int[] placed = [.. ids.Select(id => id == _model.Geometry.ImageTokenId ? -(feature++) - 1 : id)];
        return new EncodedPrompt(placed, positions, next, images.Count == 1 ? images[0].Values : [.. images.SelectMany(image => image.Values)]);
    }

    /// <inheritdoc/>
    public void Dispose() => _vision.Dispose();
}
