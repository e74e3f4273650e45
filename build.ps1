# The verbs of build.sh where there is PowerShell: setup build kernels test demo pack bundle. Nothing here but calls of cmake and dotnet.
param(
  [Parameter(Mandatory, Position = 0)]
  [ValidateSet('setup', 'build', 'kernels', 'test', 'demo', 'pack', 'bundle')]
  [string] $Verb,

  [Parameter(Position = 1, ValueFromRemainingArguments)]
  [string[]] $Rest = @()
)

$ErrorActionPreference = 'Stop'
Set-Location $PSScriptRoot

function Invoke-Tool {
  param([string] $Tool, [string[]] $Arguments)
  & $Tool @Arguments
  if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}

function Invoke-Setup { Invoke-Tool dotnet @('--version') }

function Invoke-Build { Invoke-Kernels; Invoke-Tool dotnet @('build', 'LrIad.sln', '-c', 'Release', '--nologo', '-v', 'quiet') }

function Invoke-Kernels {
  $compilers = Get-Command cmake, nvcc -ErrorAction SilentlyContinue
  if (@($compilers).Count -lt 2) {
    Write-Output 'The CUDA kernels are not compiled (that takes cmake and nvcc on the PATH): going on without support for GPUs.'
  } else {
    Invoke-Tool cmake @('-S', 'cmake', '-B', 'build/kernels')
    Invoke-Tool cmake @('--build', 'build/kernels')
  }
}

function Invoke-Tests {
  $filter = if ($Rest -contains 'full') { @() } else { @('--filter', 'TestCategory!=Full') }
  # 8: a project without a test at this level.
  Invoke-Tool dotnet (@('test', '--solution', 'LrIad.sln', '-c', 'Release', '--no-build', '--ignore-exit-code', '8') + $filter)
}

function Invoke-Demo {
  $out = "out/demo-$(Get-Date -Format 'yyyyMMdd-HHmmss')"
  Invoke-Tool dotnet (@('run', '--project', 'src/Cli', '-c', 'Release', '--no-build', '--', 'train', '--sample', '--out', $out) + $Rest)
}

function Invoke-Pack {
  if (Test-Path out/packages) { Remove-Item -Recurse -Force out/packages }
  Invoke-Tool dotnet @('pack', 'src/Engine', '-c', 'Release', '--nologo', '-v', 'quiet', '-o', 'out/packages')
  Invoke-Tool dotnet @('run', '--project', 'samples/engine', '-c', 'Release', '--', 'samples/tiny-qwen2-vl', 'samples/parts-mvtec/gear/test/crack/000.png', 'gear')
}

switch ($Verb) {
  'setup' { Invoke-Setup }
  'build' { Invoke-Setup; Invoke-Build }
  'kernels' { Invoke-Kernels }
  'test' { Invoke-Setup; Invoke-Build; Invoke-Tests }
  'demo' { Invoke-Setup; Invoke-Build; Invoke-Demo }
  'pack' { Invoke-Setup; Invoke-Kernels; Invoke-Pack }
  'bundle' { Invoke-Setup; Invoke-Kernels; Invoke-Tool dotnet @('publish', 'src/Cli', '-c', 'Release', '--nologo', '-v', 'quiet', '--self-contained', '-o', 'out/bundle/lriad-fast') }
}
