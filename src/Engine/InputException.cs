namespace LrIad.Engine;

/// <summary>
/// Something the user gave is wrong: a file, an option, a folder. The message says what is wrong, where, and what to do; the command line prints it
/// and exits with 2.
/// </summary>
public sealed class InputException : Exception
{
    /// <param name="message">What is wrong, where, and what to do.</param>
    public InputException(string message)
        : base(message)
    {
    }

    /// <param name="message">What is wrong, where, and what to do.</param>
    /// <param name="inner">What it came from.</param>
    public InputException(string message, Exception inner)
        : base(message, inner)
    {
    }
}
