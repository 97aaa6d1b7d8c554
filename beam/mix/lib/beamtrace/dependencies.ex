defmodule Beamtrace.Dependencies do
  @moduledoc false
  # Which dependencies a project wants instrumented, and which it had instrumented before: those come back plain when they are wanted no
  # longer. Each project of a build has its own list: another one of an umbrella may still want them.

  @list "compile.beamtrace.dependencies"
  @manifest "compile.beamtrace"

  @doc "Dependencies that are to be instrumented: those of an umbrella are applications of their own."
  def wanted(%{dependencies: wanted}) do
    deps = for %{app: app, opts: opts} <- Mix.Dep.cached(), app != :beamtrace, !opts[:in_umbrella], do: app

    if wanted == :all do
      deps
    else
      for app <- wanted, app not in deps do
        Mix.raise(
          "beamtrace: there is no dependency #{inspect(app)}; there are: #{Enum.map_join(deps, ", ", &inspect/1)}"
        )
      end

      wanted
    end
  end

  @doc """
  Dependencies that this project had instrumented and wants no longer, nor does another project of the build. They are remembered, with those
  that are wanted, until `settled/3`: a build that is interrupted leaves them for the next one.
  """
  def dropped(config, wanted) do
    before = read(list(config))
    write(config, Enum.uniq(before ++ names(wanted)))

    elsewhere =
      for path <- Path.wildcard(in_build(config, "*", @list), match_dot: true),
          path != list(config),
          name <- read(path),
          do: name

    (before -- names(wanted)) -- elsewhere
  end

  @doc "What became of those that are no longer wanted: those that are not plain again are tried, and told, the next time."
  def settled(config, wanted, results) do
    left = for {name, result} <- results, not plain?(result), do: name
    write(config, names(wanted) ++ left)
  end

  defp plain?({status, %{failures: [], orphans: []}}) when status in [:ok, :noop], do: true
  defp plain?(_), do: false

  def ebin(config, name), do: in_build(config, name, "ebin", "")
  def manifest(config, name), do: in_build(config, name, @manifest)

  defp in_build(config, name, folder \\ ".mix", file),
    do: Path.join([Mix.Project.build_path(config), "lib", "#{name}", folder, file])

  defp list(config), do: Path.join(Mix.Project.manifest_path(config), @list)

  defp names(apps), do: Enum.map(apps, &to_string/1)

  defp read(path) do
    case File.read(path) do
      {:ok, text} -> String.split(text, "\n", trim: true)
      {:error, _} -> []
    end
  end

  defp write(config, names) do
    cond do
      names == read(list(config)) -> :ok
      names == [] -> File.rm(list(config))
      # A folder that can't be written is told by those who write there what matters.
      true -> File.write(list(config), Enum.join(names, "\n"))
    end
  end
end
