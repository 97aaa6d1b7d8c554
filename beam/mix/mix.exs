defmodule Beamtrace.MixProject do
  use Mix.Project

  # The version is that of the npm package that this folder comes with.
  @version (case File.read(Path.expand("../../package.json", __DIR__)) do
              {:ok, json} -> json |> then(&Regex.run(~r/"version":\s*"([^"]+)"/, &1)) |> List.last()
              {:error, _} -> "0.0.0"
            end)

  def project do
    [
      app: :beamtrace,
      version: @version,
      elixir: "~> 1.14",
      # What Mix and rebar3 have in common.
      erlc_paths: ["../build/src"],
      deps: []
    ]
  end

  # Only the build uses it: nothing of it runs or is released.
  def application, do: [extra_applications: [:mix]]
end
