using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text;
using System.Text.RegularExpressions;

namespace LrIad.Cli;

/// <summary>Facts about the machine that matter here.</summary>
internal static partial class Machine
{
    private static readonly string[] LibraryFolders = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

    public static IEnumerable<(string Name, string Value)> Facts()
    {
        yield return ("system", $"{RuntimeInformation.OSDescription}, {RuntimeInformation.ProcessArchitecture}");
        yield return (".NET", Environment.Version.ToString());
        yield return ("processor", $"{ProcessorName()}{Environment.ProcessorCount} cores usable, {SimdBits()}-bit SIMD");
        yield return ("memory", string.Create(CultureInfo.InvariantCulture, $"{GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / (double)(1 << 30):F1} GiB usable"));
        if (OperatingSystem.IsLinux())
        {
            yield return ("libstdc++", CxxLibrary());
        }

        yield return ("GPU", Gpu());
    }

    private static string ProcessorName() =>
        File.Exists("/proc/cpuinfo") && File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal)) is { } line
            ? line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim() + ", "
            : "";

    private static int SimdBits() => Vector512.IsHardwareAccelerated ? 512 : Vector256.IsHardwareAccelerated ? 256 : Vector128.IsHardwareAccelerated ? 128 : 0;

    private static string CxxLibrary()
    {
        var file = LibraryFolders.Select(folder => Path.Combine(folder, "libstdc++.so.6")).FirstOrDefault(File.Exists);
        if (file is null)
        {
            return "not found in the usual folders";
        }

        var newest = Symbol().Matches(Encoding.Latin1.GetString(File.ReadAllBytes(file))).Select(match => int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture)).DefaultIfEmpty().Max();
        return $"{file}, up to GLIBCXX_3.4.{newest} (libtorch wants 3.4.32)";
    }

    private static string Gpu()
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo("nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version --format=csv,noheader")
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
            var text = process.StandardOutput.ReadToEnd().Trim();
            process.WaitForExit();
            return process.ExitCode == 0 && text.Length > 0 ? text.ReplaceLineEndings("; ") : "nvidia-smi finds none";
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return File.Exists("/proc/driver/nvidia/version") ? "an NVIDIA driver is loaded, nvidia-smi is missing" : "no NVIDIA driver found";
        }
    }

    [GeneratedRegex(@"GLIBCXX_3\.4\.(\d+)")]
    private static partial Regex Symbol();
}
