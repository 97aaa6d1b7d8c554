defmodule Mix.Tasks.Beamtrace.Protocols do
  @shortdoc "Instruments the consolidated protocols of an umbrella"

  @moduledoc """
  Puts beamtrace's events into the consolidated protocols of an umbrella project.

  Mix consolidates them when all applications are compiled, after their compilers have run. So the umbrella's own `mix.exs` says

      aliases: [compile: ["compile", "beamtrace.protocols"]],
      beamtrace: [plan: "beamtrace.json"]

  A project that is no umbrella needs none of this.
  """
  use Mix.Task

  alias Beamtrace.{Build, Options}

  @impl true
  def run(args) do
    config = Mix.Project.config()
    options = Options.read(config)
    {status, _} = config |> Build.protocols(options, args, false) |> Build.finished(options)
    if status == :error, do: Mix.raise("beamtrace could not instrument the consolidated protocols")
    Mix.Task.reenable("beamtrace.protocols")
    status
  end
end
