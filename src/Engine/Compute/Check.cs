using System.Runtime.CompilerServices;

namespace LrIad.Engine.Compute;

/// <summary>Shape checks at the seam: each names the operation and operand that is wrong.</summary>
internal static class Check
{
    public static void Rows(int rows, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        if (tensor.Rows != rows)
        {
            throw Wrong(operation, operand, tensor, $"{rows} rows");
        }
    }

    public static void Columns(int columns, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        if (tensor.Columns != columns)
        {
            throw Wrong(operation, operand, tensor, $"{columns} columns");
        }
    }

    public static void Shape(int rows, int columns, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        if (tensor.IsEmpty || tensor.Rows != rows || tensor.Columns != columns)
        {
            throw Wrong(operation, operand, tensor, $"[{rows}, {columns}]");
        }
    }

    public static void Type(ElementType type, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        if (tensor.Type != type)
        {
            throw Wrong(operation, operand, tensor, type.ToString());
        }
    }

    public static void Same(Tensor like, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        Shape(like.Rows, like.Columns, tensor, operand, operation);
        Type(like.Type, tensor, operand, operation);
    }

    public static void Gradient(Tensor of, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        Shape(of.Rows, of.Columns, tensor, operand, operation);
        Type(ElementType.Float32, tensor, operand, operation);
    }

    public static void Rounded(Tensor of, Tensor tensor, string operand, [CallerMemberName] string operation = "")
    {
        if (!tensor.IsEmpty)
        {
            Same(of, tensor, operand, operation);
        }
    }

    public static void Length<T>(int length, View<T> view, string operand, [CallerMemberName] string operation = "")
        where T : unmanaged
    {
        if (view.Length != length)
        {
            throw new ArgumentException($"{operation}: {operand} has {view.Length} values, expected {length}.");
        }
    }

    public static void Top(int rows, HeadResult result, [CallerMemberName] string operation = "")
    {
        Length(result.TopToken.Length, result.TopLogProb, nameof(result), operation);
        if (result.TopToken.Length % Math.Max(1, rows) != 0 || result.TopToken.Length > rows * HeadResult.MostTop)
        {
            throw new ArgumentException($"{operation}: {result.TopToken.Length} places for the likeliest tokens of {rows} rows; each has the same number, at most {HeadResult.MostTop}.");
        }
    }

    public static void Heads(KvLayer kv, Tensor q, [CallerMemberName] string operation = "")
    {
        if (kv.HeadDim <= 0 || kv.Heads <= 0 || q.Columns % (kv.HeadDim * kv.Heads) != 0)
        {
            throw Wrong(operation, nameof(q), q, $"a multiple of {kv.Heads} heads of {kv.HeadDim}");
        }

        Columns(KvLayer.BlockColumns(kv.Heads, kv.HeadDim), kv.Data, nameof(kv), operation);
    }

    public static void Kv(KvLayer kv, Rotary rotary, int keyOutputs, int queryOutputs, [CallerMemberName] string operation = "")
    {
        if (kv.HeadDim != rotary.HeadDim || kv.Heads * kv.HeadDim != keyOutputs || queryOutputs % keyOutputs != 0)
        {
            throw new ArgumentException($"{operation}: cache of {kv.Heads} heads of {kv.HeadDim} does not fit {keyOutputs} key and {queryOutputs} query outputs with rotary over {rotary.HeadDim}.");
        }

        Columns(KvLayer.BlockColumns(kv.Heads, kv.HeadDim), kv.Data, nameof(kv), operation);
    }

    public static void Adapter(AdapterLayer? adapter, QkvWeights weights, [CallerMemberName] string operation = "")
    {
        if (adapter is null)
        {
            return;
        }

        var rank = adapter.Rank;
        Shape(rank, weights.Query.Inputs, adapter.Query.A, "query A", operation);
        Shape(weights.Query.Outputs, rank, adapter.Query.B, "query B", operation);
        Shape(rank, weights.Value.Inputs, adapter.Value.A, "value A", operation);
        Shape(weights.Value.Outputs, rank, adapter.Value.B, "value B", operation);
    }

    private static ArgumentException Wrong(string operation, string operand, Tensor tensor, string expected) =>
        new($"{operation}: {operand} is {tensor}, expected {expected}.");
}
