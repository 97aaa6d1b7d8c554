defmodule Beamtrace.Build do
  @moduledoc false
  # What the Mix tasks share: options of the project, the jobs that they mean, and what is said about the outcome.

  @cli Path.expand("../../../../dist/cli/main.js", __DIR__)
  @protocols_manifest "compile.beamtrace.protocols"
  @keys [:plan, :environment, :dependencies, :node, :required, :cli]

  def options(config) do
    given = config[:beamtrace] || []

    unless Keyword.keyword?(given), do: Mix.raise(":beamtrace of the project must be a keyword list")

    for {key, _} <- given, key not in @keys do
      near = Enum.max_by(@keys, &String.jaro_distance(to_string(&1), to_string(key)))
      Mix.raise("beamtrace has no option #{inspect(key)}, did you mean #{inspect(near)}?")
    end

    %{
      plan: plan(Keyword.get(given, :plan)),
      environment: to_string(Keyword.get(given, :environment, Mix.env())),
      dependencies: Keyword.get(given, :dependencies, []),
      node: Keyword.get(given, :node, "node"),
      required: Keyword.get(given, :required, false),
      cli: Keyword.get(given, :cli, @cli)
    }
  end

  # A plan by the default name need not be there.
  defp plan(nil), do: if(File.regular?("beamtrace.json"), do: Path.expand("beamtrace.json"))
  defp plan(false), do: nil
  defp plan(path), do: Path.expand(path)

  @doc "Dependencies that are to be instrumented: those of an umbrella are applications of their own."
  def dependencies(%{dependencies: wanted}) do
    deps = for %{app: app, opts: opts} <- Mix.Dep.cached(), app != :beamtrace, !opts[:in_umbrella], do: app

    case wanted do
      :all ->
        deps

      list when is_list(list) ->
        for app <- list, app not in deps do
          Mix.raise("beamtrace: there is no dependency #{inspect(app)}; there are: #{Enum.map_join(deps, ", ", &inspect/1)}")
        end

        list

      other ->
        Mix.raise("beamtrace: :dependencies must be :all or a list of applications, not #{inspect(other)}")
    end
  end

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

    result = :beamtrace_build.run(Map.merge(job, more))
    say(application, result)
    result
  end

  @doc "Instruments the consolidated protocols of the applications at hand; `changed?` says whether any of their modules has changed."
  def protocols(config, options, args, changed?) do
    path = Mix.Project.consolidation_path(config)
    manifest = Path.join(Mix.Project.manifest_path(config), @protocols_manifest)
    if options.plan && consolidates_after_compilers?(config), do: consolidate(config, args, changed?)

    for {application, ebin} <- owners(config, options), reduce: [] do
      results ->
        mine = MapSet.new(Path.wildcard(Path.join(ebin, "*.beam")), &Path.basename/1)
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

    if changed? or compiled? or not File.dir?(Mix.Project.consolidation_path(config)),
      do: Mix.Task.run("compile.protocols", args)
  end

  defp owners(config, options) do
    lib = Path.join(Mix.Project.build_path(config), "lib")

    own =
      case Mix.Project.apps_paths(config) do
        nil -> [config[:app]]
        apps -> Map.keys(apps)
      end

    for app <- own ++ dependencies(options), do: {app, Path.join([lib, "#{app}", "ebin"])}
  end

  def clean_protocols(config) do
    for file <- Path.wildcard(Path.join(Mix.Project.manifest_path(config), @protocols_manifest <> ".*"), match_dot: true),
        not String.ends_with?(file, ".kept") do
      :beamtrace_build.clean(%{manifest: to_charlist(file)})
    end

    :ok
  end

  defp say(application, {:ok, %{instrumented: [_ | _] = modules}}) do
    functions = modules |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    Mix.shell().info("Instrumented #{length(modules)} module#{plural(modules)} of #{application} (#{functions} functions)")
  end

  defp say(_, _), do: :ok

  defp plural([_]), do: ""
  defp plural(_), do: "s"

  @doc "The status of the compiler, with its diagnostics."
  def finished(results, options) do
    config = Mix.Project.config()
    failures = for {status, %{failures: list}} <- results, status in [:ok, :noop], failure <- list, do: failure
    problems = for {:error, problem} <- results, uniq: true, do: problem
    severity = if options.required, do: :error, else: :warning

    diagnostics =
      Enum.map(failures, &diagnostic(&1, config)) ++
        Enum.map(problems, &problem_diagnostic(&1, severity, options))

    Enum.each(diagnostics, &print/1)

    status =
      cond do
        problems != [] and options.required -> :error
        Enum.any?(results, &match?({:ok, _}, &1)) -> :ok
        true -> :noop
      end

    {status, diagnostics}
  end

  @doc "A module that stays as it was."
  def diagnostic(failure, config) do
    diagnostic(
      failure.file,
      failure.line,
      :warning,
      "#{inspect_module(failure.module)} is not instrumented: #{failure.message}",
      config
    )
  end

  defp problem_diagnostic(problem, severity, options) do
    file = options.plan || "mix.exs"
    diagnostic(file, 0, severity, "nothing is instrumented: #{problem.message}", nil)
  end

  defp diagnostic(file, line, severity, message, _config) do
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
