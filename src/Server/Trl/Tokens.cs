using System.Text.Json;
using LrIad.Server.Requests;

namespace LrIad.Server.Trl;

/// <summary>Reads token ids.</summary>
internal static class Tokens
{
    /// <exception cref="RequestException">It is no list of them, or one is not in the vocabulary.</exception>
    public static int[] Read(JsonElement list, string where, int vocabulary)
    {
        if (list.ValueKind != JsonValueKind.Array)
        {
            throw RequestException.Bad(where, "must be a list of token ids");
        }

        var ids = new int[list.GetArrayLength()];
        var place = 0;
        foreach (var item in list.EnumerateArray())
        {
            if (item.ValueKind != JsonValueKind.Number || !item.TryGetInt32(out ids[place]) || ids[place] < 0 || ids[place] >= vocabulary)
            {
                throw RequestException.Bad($"{where}[{place}]", $"must be a token id from 0 to {vocabulary - 1}");
            }

            place++;
        }

        return ids;
    }
}
