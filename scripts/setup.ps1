# Set up .venv in the repository root with the versions of constraints.txt. Run again, it only checks.
#
#   scripts\setup.ps1              what the road from photos to a merged model needs
#   scripts\setup.ps1 web quant    with extras of pyproject.toml, such as serve, web, gguf, quant, endpoint
#   $env:PYTHON = "C:\Python312\python.exe"; scripts\setup.ps1    with this Python
#
# For Windows PowerShell 5.1 and PowerShell 7; scripts/setup.sh is the same for Linux. docs/install.md says how to
# let scripts run, and how to get a PyTorch for the GPU.
$extras = @($args)
$root = Split-Path -Parent $PSScriptRoot
$venv = Join-Path $root ".venv"
$python = Join-Path $venv "Scripts\python.exe"
$inspect = Join-Path $venv "Scripts\llava-inspect.exe"
$stamp = Join-Path $venv "installed"
$project = Join-Path $root "pyproject.toml"
$constraints = Join-Path $root "constraints.txt"

function Stop-Setup([string[]] $lines) {
    foreach ($line in $lines) { [Console]::Error.WriteLine($line) }
    exit 2
}

# Whether a program exists and ends with 0; what it says is not shown.
function Test-Program([string] $program, [string[]] $arguments) {
    if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { return $false }
    # PowerShell 5.1 takes a line on stderr for an error of the script
    $ErrorActionPreference = "SilentlyContinue"
    & $program @arguments 2>&1 | Out-Null
    return $LASTEXITCODE -eq 0
}

# The program and first arguments of a Python that will do.
function Find-Python {
    $candidates = @("py", "-3.12"), @("py", "-3.11"), @("python"), @("python3"), @("py", "-3.13"), @("py", "-3.14")
    if ($env:PYTHON) { $candidates = , @($env:PYTHON) }
    $suits = "import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"
    foreach ($candidate in $candidates) {
        $options = @($candidate | Select-Object -Skip 1) + @("-c", $suits)
        if (Test-Program $candidate[0] $options) { return $candidate }
    }
    Stop-Setup "error: no Python 3.11 to 3.14 found; install Python 3.12 from python.org, or set `$env:PYTHON to its python.exe"
}

$known = @()
$inside = $false
foreach ($line in Get-Content $project) {
    if ($line -eq "[project.optional-dependencies]") { $inside = $true }
    elseif ($line -eq "") { $inside = $false }
    elseif ($inside -and $line -match "^([\w-]+) = \[") { $known += $Matches[1] }
}
foreach ($extra in $extras) {
    if ($known -cnotcontains $extra) { Stop-Setup "error: there is no extra $extra; choose from $known" }
}
$pins = (Get-FileHash $project, $constraints).Hash -join ""
$wanted = "$pins [$($extras -join ',')]"
$installed = @()
if (Test-Path $stamp) { $installed = @(Get-Content $stamp) }
# The console script, not Python: it names its Python by a whole path, which is wrong once the folder has moved.
if (($installed -ccontains $wanted) -and (Test-Program $inspect @("--version"))) { exit 0 }
if (-not (Test-Program $python @("-c", "pass"))) {
    $found = @(Find-Python)
    $options = @($found | Select-Object -Skip 1)
    $version = & $found[0] @options --version
    Write-Output "Creating .venv with $version"
    & $found[0] @options -m venv --clear $venv
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}
Write-Output "Installing the pinned packages into .venv (a few minutes the first time)"
$what = $root
if ($extras) { $what = "$root[$($extras -join ',')]" }
& $python -m pip install --quiet --disable-pip-version-check --constraint $constraints --editable $what
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
if (& $python -m pip list "--format=freeze" --disable-pip-version-check | Where-Object { $_ -match "^llava(-torch)?==" }) {
    Stop-Setup @(
        "error: the original LLaVA is installed in .venv; both are called llava and cannot share an environment."
        "       Remove it: .venv\Scripts\python -m pip uninstall llava llava-torch"
    )
}
# Each line is a set of extras that this environment satisfies, none being always one of them; a changed pin
# makes all earlier lines void.
$kept = @($installed | Where-Object { $_.StartsWith("$pins [") }) + @("$pins []", $wanted)
Set-Content -Path $stamp -Value ($kept | Sort-Object -Unique) -Encoding ascii
Write-Output "Done. In each new terminal: .venv\Scripts\Activate.ps1   (without it, write .venv\Scripts\llava-inspect)"
exit 0
