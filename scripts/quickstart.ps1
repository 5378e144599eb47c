# The whole road on the embedded sample: photos -> questions and answers -> LoRA -> merged model -> scores.
# Everything it writes is under playground\quickstart\.
#
#   scripts\quickstart.ps1
#   scripts\quickstart.ps1 epochs=2    a shorter training than that of configs\tiny_cpu.yaml: it learns less
if ("$args" -cnotmatch "^(epochs=[1-9][0-9]*)?$") {
    [Console]::Error.WriteLine("usage: scripts\quickstart.ps1 [epochs=N]")
    exit 2
}
& (Join-Path $PSScriptRoot "setup.ps1")
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }

$root = Split-Path -Parent $PSScriptRoot
$inspect = Join-Path $root ".venv\Scripts\llava-inspect.exe"
$here = "playground/quickstart"
$env:PYTHONUTF8 = "1"  # the bars of the report, also where the output goes to a file
$started = [Diagnostics.Stopwatch]::StartNew()

function Invoke-Inspect([string[]] $arguments) {
    & $inspect @arguments
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}

function Invoke-Render([string] $what, [string[]] $arguments) {
    Write-Host "`n$what" -ForegroundColor White
    Write-Host "  > llava-inspect scenes --output $arguments"
    Invoke-Inspect (@("scenes", "--output") + $arguments)
}

Push-Location $root
try {
    if (Test-Path $here) { Remove-Item -Recurse -Force $here }
    Invoke-Render "Render 1100 drone photos of insulator strings to learn from, with exact boxes (Pascal VOC)." `
        @("$here/photos", "--count", "1100", "--seed", "1", "--defect-share", "0.55")
    Invoke-Render "Render 150 more from another seed, which training never sees, to be tested on." `
        @("$here/photos_test", "--count", "150", "--seed", "2")
    # Without made-up dialogues, which take a fifth of the time and are not tested.
    Invoke-Inspect (@(
        "run", "$here/photos", "--test-photos", "$here/photos_test", "--recipe", "insulator"
        "--set-recipe", "splits.val=0.05", "--set-recipe", "dialogues=0", "--output", "$here/run"
    ) + $args)
    Write-Host ("`nAll of it took {0} min {1:00} s." -f [Math]::Floor($started.Elapsed.TotalMinutes), $started.Elapsed.Seconds)
}
finally {
    Pop-Location
}
