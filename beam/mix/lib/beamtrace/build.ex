defmodule Beamtrace.Build do
  @moduledoc false
  # What the Mix tasks share: the jobs that the project means, and what is said about the outcome.

  alias Beamtrace.Dependencies

  @protocols_manifest "compile.beamtrace.protocols"

  @doc "Instruments the beams of one folder."
  def run(options, application, folder, manifest, more \\ %{}) do
    job = %{
      folder: to_charlist(folder),
      application: to_string(application),
      manifest: to_charlist(manifest),
      plan: if(options.plan, do: to_charlist(options.plan), else: :undefined),
      environment: options.environment,
      program: %{node: to_charlist(options.node), cli: to_charlist(options.cli)}
    }

    {status, outcome} = :beamtrace_build.run(Map.merge(job, more))
    result = {status, Map.merge(outcome, %{application: application, folder: folder})}
    say(application, result)
    result
  end

  @doc "Instruments the consolidated protocols of the applications at hand; `changed?` says whether any of their modules has changed."
  def protocols(config, options, args, changed?) do
    path = Mix.Project.consolidation_path(config)
    manifest = Path.join(Mix.Project.manifest_path(config), @protocols_manifest)
    if options.plan && consolidates_after_compilers?(config), do: consolidate(config, args, changed?)

    owners = owners(config, options)

    for {application, options} <-
          Enum.map(owners, &{&1, options}) ++ Enum.map(dropped_owners(config, owners), &{&1, %{options | plan: nil}}),
        reduce: [] do
      results ->
        mine = MapSet.new(Path.wildcard(Path.join(Dependencies.ebin(config, application), "*.beam")), &Path.basename/1)
        own_manifest = "#{manifest}.#{application}"
        only = &MapSet.member?(mine, to_string(&1))
        [run(options, application, path, own_manifest, %{only: only}) | results]
    end
  end

  # Since 1.19 the Elixir compiler does it.
  defp consolidates_after_compilers?(config),
    do: not Mix.Project.umbrella?(config) and not Version.match?(System.version(), ">= 1.19.0-dev")

  # What Mix would do in a moment, when it has to. A task runs once: it won't do so again.
  defp consolidate(config, args, changed?) do
    manifest = &Path.join(Mix.Project.manifest_path(config), &1)
    compiled? = Mix.Utils.stale?([manifest.("compile.elixir")], [manifest.("compile.protocols")])

    if changed? or compiled? or "--force" in args or not File.dir?(Mix.Project.consolidation_path(config)),
      do: Mix.Task.run("compile.protocols", args)
  end

  defp owners(config, options) do
    own =
      case Mix.Project.apps_paths(config) do
        nil -> [config[:app]]
        apps -> Map.keys(apps)
      end

    own ++ Dependencies.wanted(options)
  end

  # Those whose protocols were instrumented before and are not to be any more.
  defp dropped_owners(config, owners), do: instrumented_owners(config) -- Enum.map(owners, &to_string/1)

  defp instrumented_owners(config) do
    files = Path.wildcard(Path.join(Mix.Project.manifest_path(config), @protocols_manifest <> ".*"), match_dot: true)

    for file <- files,
        uniq: true,
        do: file |> Path.basename(".kept") |> String.replace_prefix(@protocols_manifest <> ".", "")
  end

  def clean_protocols(config) do
    for owner <- instrumented_owners(config) do
      manifest = Path.join(Mix.Project.manifest_path(config), "#{@protocols_manifest}.#{owner}")
      :beamtrace_build.clean(%{manifest: to_charlist(manifest)})
    end

    :ok
  end

  defp say(application, {:ok, %{instrumented: [_ | _] = modules}}) do
    functions = modules |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    Mix.shell().info("Instrumented #{counted(modules)} of #{application} (#{functions} functions)")
  end

  defp say(_, _), do: :ok

  defp plural([_]), do: ""
  defp plural(_), do: "s"

  @doc "The status of the compiler, with its diagnostics."
  def finished(results, options) do
    config = Mix.Project.config()
    severity = if options.required, do: :error, else: :warning
    problems = for {:error, problem} <- results, do: problem

    diagnostics =
      Enum.flat_map(for({status, report} <- results, status != :error, do: report), &diagnostics(&1, config)) ++
        problem_diagnostics(problems, severity, options)

    Enum.each(diagnostics, &print/1)

    status =
      cond do
        problems != [] and options.required -> :error
        Enum.any?(results, &match?({:ok, _}, &1)) -> :ok
        true -> :noop
      end

    {status, diagnostics}
  end

  @doc "Modules that stay as they were."
  def diagnostics(report, config) do
    orphans =
      if report.orphans == [],
        do: [],
        else: [diagnostic(report.folder, 0, :warning, orphaned(report.orphans, report.application, config))]

    Enum.map(report.failures, &failure_diagnostic/1) ++ orphans
  end

  defp failure_diagnostic(%{code: "BT_NOT_WRITTEN"} = failure),
    do:
      diagnostic(
        failure.file,
        failure.line,
        :warning,
        "#{inspect_module(failure.module)} stays as it was: #{failure.message}"
      )

  defp failure_diagnostic(failure),
    do:
      diagnostic(
        failure.file,
        failure.line,
        :warning,
        "#{inspect_module(failure.module)} is not instrumented: #{failure.message}"
      )

  # Only the compiler can write them anew.
  defp orphaned(files, application, config) do
    own = [config[:app] | Map.keys(Mix.Project.apps_paths(config) || %{})]

    command =
      if Enum.any?(own, &(to_string(&1) == to_string(application))),
        do: "mix compile --force",
        else: "mix deps.compile #{application} --force"

    {shown, more} = files |> Enum.map(&inspect_module(Path.basename(to_string(&1), ".beam"))) |> Enum.split(3)
    names = Enum.join(shown, ", ") <> if(more == [], do: "", else: " and #{length(more)} more")

    "#{counted(files)} of #{application} should be plain and #{stay(files)} instrumented (#{names}): " <>
      "what the compiler wrote is not kept any more. To compile them anew: #{command}"
  end

  defp stay([_]), do: "stays"
  defp stay(_), do: "stay"

  defp counted(modules), do: "#{length(modules)} module#{plural(modules)}"

  # One problem is that of all jobs; each has its own modules, a protocol in two places.
  defp problem_diagnostics(problems, severity, options) do
    instrumented = problems |> Enum.flat_map(& &1.instrumented) |> Enum.uniq() |> length()

    for message <- problems |> Enum.map(& &1.message) |> Enum.uniq() do
      text =
        if instrumented == 0,
          do: "nothing is instrumented: #{message}",
          else: "nothing is instrumented anew: #{message}\n#{kept_events(instrumented)}"

      diagnostic(options.plan || "mix.exs", 0, severity, text)
    end
  end

  defp kept_events(1), do: "One module that has not changed keeps the events that it had; all others have none."

  defp kept_events(count),
    do: "#{count} modules that have not changed keep the events that they had; all others have none."

  defp diagnostic(file, line, severity, message) do
    %Mix.Task.Compiler.Diagnostic{
      compiler_name: "beamtrace",
      file: Path.expand(file),
      position: line,
      severity: severity,
      message: message
    }
  end

  defp inspect_module("Elixir." <> name), do: name
  defp inspect_module(name), do: name

  defp print(%{file: file, position: line, severity: severity, message: message}) do
    place = if line > 0, do: "#{Path.relative_to_cwd(file)}:#{line}", else: Path.relative_to_cwd(file)
    Mix.shell().error("#{severity}: #{message}\n  #{place}")
  end
end
