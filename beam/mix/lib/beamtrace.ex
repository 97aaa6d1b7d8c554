defmodule Beamtrace do
  @moduledoc """
  Marks functions for a plan's rules of the kind `{"include": {"attribute": "beamtrace"}}`.

      defmodule Shop.Cart do
        use Beamtrace

        @beamtrace true
        def add(cart, item), do: …
      end

  `@beamtrace true` marks the function that follows it. `use Beamtrace, only: [add: 2]` marks functions by name, `use Beamtrace, all: true` all
  of the module. The marks end up in the module's attribute `beamtrace`; nothing else of the module changes, and nothing of this
  module is needed when it runs.
  """

  defmacro __using__(options) do
    quote do
      Module.register_attribute(__MODULE__, :beamtrace_marked, accumulate: true)
      @beamtrace_marked unquote(marks(options))
      @on_definition {Beamtrace, :__mark__}
      @before_compile Beamtrace
    end
  end

  defp marks(options) do
    case options do
      [] -> []
      [all: true] -> [true]
      [only: functions] when is_list(functions) -> functions
      _ -> raise ArgumentError, "use Beamtrace takes only: [function: arity, …] or all: true"
    end
  end

  @doc false
  def __mark__(env, _kind, name, arguments, _guards, _body) do
    case Module.get_attribute(env.module, :beamtrace) do
      nil ->
        :ok

      true ->
        Module.delete_attribute(env.module, :beamtrace)
        Module.put_attribute(env.module, :beamtrace_marked, [{name, length(arguments)}])

      other ->
        raise ArgumentError, "@beamtrace stands before a function and is true, not #{inspect(other)}"
    end
  end

  @doc false
  defmacro __before_compile__(env) do
    marked = env.module |> Module.get_attribute(:beamtrace_marked) |> Enum.reverse() |> Enum.concat() |> Enum.uniq()
    Module.delete_attribute(env.module, :beamtrace_marked)
    Module.register_attribute(env.module, :beamtrace, persist: true)
    Module.put_attribute(env.module, :beamtrace, marked)
    nil
  end
end
