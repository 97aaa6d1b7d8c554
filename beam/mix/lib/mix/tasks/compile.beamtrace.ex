defmodule Mix.Tasks.Compile.Beamtrace do
  @moduledoc """
  Puts beamtrace's events into the compiled modules of a project, as a plan says.

      def project do
        [
          compilers: Mix.compilers() ++ [:beamtrace],
          beamtrace: [plan: "beamtrace.json"],
          deps: [{:beamtrace, path: "node_modules/beamtrace/beam/mix", runtime: false}]
        ]
      end

  Only modules that have changed, or all when the plan has, are instrumented again. Without a plan the modules are what the compiler
  wrote, byte for byte. A module that fails stays as it was; the reason is a diagnostic of the build, which goes on.

  ## Options, under `:beamtrace` of the project

    * `:plan` - the plan's file, from the project's folder. Default `"beamtrace.json"`, which need not exist; one that is named must.
      `false`: none.
    * `:environment` - the plan's environment. Default: that of Mix.
    * `:dependencies` - applications of dependencies that are instrumented too, or `:all`. Default: none.
    * `:node` - the program `node`, or its path. Default `"node"`.
    * `:required` - whether a build without Node.js, or with a plan that makes no sense, fails. Default `false`: it warns and goes on.
  """
  use Mix.Task.Compiler

  alias Beamtrace.{Build, Dependencies, Options}

  @recursive true
  @manifest "compile.beamtrace"

  @impl true
  def run(args) do
    config = Mix.Project.config()
    options = Options.read(config)
    wanted = Dependencies.wanted(options)
    dropped = Dependencies.dropped(config, wanted)

    own = Build.run(options, config[:app], Mix.Project.compile_path(config), manifest(config))
    others = for name <- wanted, do: dependency(options, config, name)
    plain = for name <- dropped, do: dependency(%{options | plan: nil}, config, name)
    Dependencies.settled(config, wanted, Enum.zip(dropped, plain))

    results = [own | others ++ plain]
    # Of a job that failed it is not known.
    changed? = Enum.any?(results, &match?({status, outcome} when status == :error or outcome.changed, &1))
    Build.finished(results ++ consolidated(config, options, args, changed?), options)
  end

  defp dependency(options, config, name),
    do: Build.run(options, name, Dependencies.ebin(config, name), Dependencies.manifest(config, name))

  # The protocols of an umbrella are consolidated when all of its applications are compiled: `mix beamtrace.protocols` is for them.
  defp consolidated(config, options, args, changed?) do
    cond do
      config[:consolidate_protocols] == false or "--no-protocol-consolidation" in args -> []
      Mix.Task.recursing?() -> []
      true -> Build.protocols(config, options, args, changed?)
    end
  end

  @impl true
  def manifests, do: [manifest(Mix.Project.config())]

  # A callback since Elixir 1.15.
  if {:diagnostics, 0} in Mix.Task.Compiler.behaviour_info(:callbacks), do: @impl(true)

  def diagnostics do
    config = Mix.Project.config()
    report = :beamtrace_build.last(to_charlist(manifest(config)))
    Build.diagnostics(Map.merge(report, %{application: config[:app], folder: Mix.Project.compile_path(config)}), config)
  end

  @impl true
  def clean do
    config = Mix.Project.config()
    :beamtrace_build.clean(%{manifest: to_charlist(manifest(config))})
    Build.clean_protocols(config)
    # Their beams are not this project's to delete: they come back plain.
    dropped = Dependencies.dropped(config, [])
    options = %{plan: nil, environment: "", node: "", cli: ""}
    Dependencies.settled(config, [], for(name <- dropped, do: {name, dependency(options, config, name)}))
  end

  defp manifest(config), do: Path.join(Mix.Project.manifest_path(config), @manifest)
end
