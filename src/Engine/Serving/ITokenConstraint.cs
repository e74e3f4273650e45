namespace LrIad.Engine.Serving;

/// <summary>What a completion may still be: a state of a token automaton. Immutable states, shared by all sequences of a request.</summary>
internal interface ITokenConstraint
{
    /// <summary>The state before the first token.</summary>
    int Start { get; }

    /// <summary>Bits of the tokens that may come next ((vocabulary + 31) / 32 words); end tokens are allowed exactly where the text may end.</summary>
    ReadOnlySpan<uint> Allowed(int state);

    /// <summary>The state after a token; end tokens lead nowhere.</summary>
    int Next(int state, int token);

    /// <summary>Whether nothing but the end may follow.</summary>
    bool IsFinal(int state);
}
