using System.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>Tokens as callers are told of them; their texts are made once.</summary>
internal sealed class TokenTable(Tokenizer tokenizer)
{
    private readonly (byte[] Bytes, string Text)?[] _tokens = new (byte[], string)?[tokenizer.VocabularySize];

    public TokenLogProb Tell(int id, float logProb)
    {
        if (id >= _tokens.Length)
        {
            return new TokenLogProb(id, "", default, logProb);
        }

        var (bytes, text) = _tokens[id] ??= (tokenizer.Bytes(id), Encoding.UTF8.GetString(tokenizer.Bytes(id)));
        return new TokenLogProb(id, text, bytes, logProb);
    }
}
