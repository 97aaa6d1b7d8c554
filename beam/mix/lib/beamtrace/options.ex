defmodule Beamtrace.Options do
  @moduledoc false
  # What a project says under `:beamtrace`. Whatever can't be meant is told with what can.

  @cli Path.expand("../../../../dist/cli/main.js", __DIR__)
  @keys [:plan, :environment, :dependencies, :node, :required, :cli]

  def read(config) do
    given = config[:beamtrace] || []

    unless Keyword.keyword?(given),
      do: Mix.raise("beamtrace: :beamtrace of the project must be a keyword list, not #{inspect(given)}")

    for {key, value} <- given do
      if key not in @keys do
        near = Enum.max_by(@keys, &String.jaro_distance(to_string(&1), to_string(key)))
        Mix.raise("beamtrace has no option #{inspect(key)}, did you mean #{inspect(near)}?")
      end

      unless valid?(key, value),
        do: Mix.raise("beamtrace: #{inspect(key)} must be #{meant(key)}, not #{inspect(value)}")
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

  defp valid?(:plan, value), do: value in [nil, false] or text?(value)
  defp valid?(:environment, value), do: text?(value) or name?(value)
  defp valid?(:dependencies, :all), do: true

  defp valid?(:dependencies, value),
    do: is_list(value) and not List.improper?(value) and Enum.all?(value, &name?/1)

  defp valid?(:required, value), do: is_boolean(value)
  defp valid?(_, value), do: text?(value)

  defp text?(value),
    do: is_binary(value) and value != "" and String.valid?(value) and not String.contains?(value, <<0>>)

  defp name?(value), do: is_atom(value) and value not in [nil, true, false]

  defp meant(:plan), do: "the name of a file, or false"
  defp meant(:environment), do: "an atom or a string"
  defp meant(:dependencies), do: ":all or a list of applications (atoms)"
  defp meant(:node), do: "the name of a program, or its path"
  defp meant(:required), do: "true or false"
  defp meant(:cli), do: "the name of a file"

  # A plan by the default name need not be there.
  defp plan(nil), do: if(File.regular?("beamtrace.json"), do: Path.expand("beamtrace.json"))
  defp plan(false), do: nil
  defp plan(path), do: Path.expand(path)
end
