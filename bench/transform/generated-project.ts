/**
 * A Mix project of many modules for measuring builds: servers, structs, protocols and plain functions in the proportions and at the length of
 * an ordinary application. The same for the same number of modules; no two modules are alike.
 */
import { random } from "../server/statistics";

/** Source files by path. */
export function generatedSources(modules: number): Record<string, string> {
  const next = random(4);
  const files: Record<string, string> = {
    "lib/big/priced.ex": 'defprotocol Big.Priced do\n  @doc "What it costs."\n  def price(item)\nend\n',
  };
  const kinds = [context, server, schema, plugged];
  for (let i = 0; i < modules - 1; i++) {
    const kind = kinds[i % kinds.length] as (i: number, next: () => number) => string;
    files[`lib/big/part_${i}.ex`] = kind(i, next);
  }
  return files;
}

const NOUNS = [
  "account",
  "order",
  "item",
  "invoice",
  "parcel",
  "ticket",
  "review",
  "basket",
  "seller",
  "buyer",
];
const pick = <T>(list: readonly T[], next: () => number): T => list[Math.floor(next() * list.length)] as T;
const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

/** Functions over maps and lists, with pipelines, `with`, `case` and comprehensions. */
function context(i: number, next: () => number): string {
  const functions = times(6, (k) => {
    const noun = pick(NOUNS, next);
    return `
  @doc "Looks for #{${JSON.stringify(noun)}} number ${k}."
  @spec ${noun}_${k}(map, keyword) :: {:ok, map} | {:error, atom}
  def ${noun}_${k}(state, options \\\\ []) do
    limit = Keyword.get(options, :limit, ${10 + Math.floor(next() * 90)})

    with {:ok, entries} <- Map.fetch(state, :${noun}s),
         [_ | _] = found <- filter_${k}(entries, limit),
         {:ok, total} <- total_${k}(found) do
      {:ok, %{found: found, total: total, label: "${noun}-#{total}"}}
    else
      :error -> {:error, :no_${noun}s}
      [] -> {:error, :empty}
      {:error, reason} when is_atom(reason) -> {:error, reason}
    end
  end

  defp filter_${k}(entries, limit) do
    entries
    |> Enum.filter(fn %{price: price} -> price > limit and rem(price, ${2 + k}) == 0 end)
    |> Enum.sort_by(& &1.price, :desc)
    |> Enum.take(limit)
  end

  defp total_${k}([]), do: {:error, :empty}

  defp total_${k}(found) do
    case Enum.reduce(found, 0, fn %{price: price}, sum -> sum + price end) do
      0 -> {:error, :free}
      sum when sum > ${1000 + k} -> {:ok, div(sum, 2)}
      sum -> {:ok, sum}
    end
  end
`;
  });
  return `defmodule Big.Part${i} do
  @moduledoc "Part ${i}."
  require Logger
${functions.join("")}
  def matrix(size) when is_integer(size) and size > 0 do
    for x <- 1..size, y <- 1..size, rem(x * y, ${2 + (i % 5)}) == 0, into: %{}, do: {{x, y}, x * y}
  end

  def parse(<<tag::8, length::16, body::binary-size(length), rest::binary>>, acc) when tag in [1, 2, 3] do
    parse(rest, [{tag, body} | acc])
  end

  def parse(<<>>, acc), do: Enum.reverse(acc)

  def parse(other, acc) do
    Logger.debug("left over: #{byte_size(other)}")
    {:error, acc}
  end
end
`;
}

/** A GenServer. */
function server(i: number, next: () => number): string {
  const calls = times(8, (k) => {
    const noun = pick(NOUNS, next);
    return `
  @impl true
  def handle_call({:${noun}_${k}, key}, _from, %{table: table} = state) do
    case Map.get(table, key) do
      nil -> {:reply, {:error, :not_found}, state}
      %{count: count} = entry when count > ${k} -> {:reply, {:ok, entry}, %{state | hits: state.hits + 1}}
      entry -> {:reply, {:ok, entry}, state, {:continue, {:refresh, key}}}
    end
  end
`;
  });
  return `defmodule Big.Part${i} do
  @moduledoc "Server ${i}."
  use GenServer
  alias __MODULE__, as: Server
  defstruct table: %{}, hits: 0, timer: nil, name: "part${i}"

  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: Keyword.get(options, :name, __MODULE__))
  def fetch(server \\\\ __MODULE__, key), do: GenServer.call(server, {:fetch, key}, 5_000)
  def put(server \\\\ __MODULE__, key, value), do: GenServer.cast(server, {:put, key, value})

  @impl true
  def init(options) do
    state = struct!(Server, Keyword.take(options, [:table, :name]))
    {:ok, %{state | timer: Process.send_after(self(), :tick, 1_000)}}
  end
${calls.join("")}
  @impl true
  def handle_cast({:put, key, value}, state) do
    entry = %{value: value, count: 0, at: System.monotonic_time()}
    {:noreply, update_in(state.table, &Map.update(&1, key, entry, fn old -> %{old | value: value, count: old.count + 1} end))}
  end

  @impl true
  def handle_continue({:refresh, key}, state) do
    {:noreply, %{state | table: Map.update!(state.table, key, &%{&1 | count: &1.count + 1})}}
  end

  @impl true
  def handle_info(:tick, state) do
    {old, table} = Map.split_with(state.table, fn {_key, %{count: count}} -> count > ${50 + i} end)
    if map_size(old) > 0, do: send(self(), {:expired, Map.keys(old)})
    {:noreply, %{state | table: table}}
  end

  def handle_info({:expired, keys}, state) do
    _ = Enum.each(keys, fn key -> Process.put({:expired, key}, true) end)
    {:noreply, state}
  end
end
`;
}

/** A struct with validation and a protocol's implementation. */
function schema(i: number, next: () => number): string {
  const fields = [...new Set(times(9, () => `${pick(NOUNS, next)}_${Math.floor(next() * 100)}`))];
  return `defmodule Big.Part${i} do
  @moduledoc "Record ${i}."
  @fields ${JSON.stringify(fields).replaceAll('"', "").replace("[", "~w(").replace("]", ")a").replaceAll(",", " ")}
  defstruct [price: 0] ++ @fields

  @type t :: %__MODULE__{}

  def new(attributes) when is_list(attributes), do: attributes |> Map.new() |> new()

  def new(%{} = attributes) do
    @fields
    |> Enum.reduce({%__MODULE__{}, []}, fn field, {record, errors} ->
      case validate(field, Map.get(attributes, field)) do
        {:ok, value} -> {Map.put(record, field, value), errors}
        {:error, why} -> {record, [{field, why} | errors]}
      end
    end)
    |> case do
      {record, []} -> {:ok, record}
      {_, errors} -> {:error, Enum.reverse(errors)}
    end
  end
${fields
  .map(
    (field, k) => `
  defp validate(:${field}, nil), do: ${k % 2 === 0 ? "{:ok, nil}" : "{:error, :required}"}
  defp validate(:${field}, value) when is_binary(value) and byte_size(value) > ${k + 3}, do: {:ok, String.trim(value)}
  defp validate(:${field}, value) when is_integer(value), do: if(value > ${k}, do: {:ok, value * ${k + 2}}, else: {:error, :small})
  defp validate(:${field}, other), do: {:error, {:type, other}}
`,
  )
  .join("")}
  def to_map(%__MODULE__{} = record), do: record |> Map.from_struct() |> Map.reject(fn {_, value} -> is_nil(value) end)

  defimpl Big.Priced do
    def price(%{price: price}) when price > ${i}, do: price - ${i}
    def price(%{price: price}), do: price
  end
end
`;
}

/** A chain of steps over a map, each able to stop it; exceptions are turned into errors. */
function plugged(i: number, next: () => number): string {
  const steps = times(9, (k) => `${pick(NOUNS, next)}_step_${k}`);
  return `defmodule Big.Part${i} do
  @moduledoc "Steps ${i}."
  @behaviour Access

  def call(conn, options) do
    Enum.reduce_while([${steps.map((step) => `&${step}/2`).join(", ")}], conn, fn step, conn ->
      case step.(conn, options) do
        %{halted: true} = conn -> {:halt, conn}
        conn -> {:cont, conn}
      end
    end)
  rescue
    error in [ArgumentError, KeyError] -> Map.put(conn, :error, Exception.message(error))
  end
${steps
  .map(
    (step, k) => `
  defp ${step}(%{params: %{"id" => id}} = conn, options) when is_binary(id) do
    cond do
      String.length(id) < ${k} -> %{conn | halted: true}
      options[:strict] && not String.match?(id, ~r/^[a-z]{1,${k + 2}}$/) -> Map.put(conn, :error, "bad id #{id}")
      true -> put_in(conn.params["id"], String.upcase(id))
    end
  end

  defp ${step}(conn, _options), do: Map.update(conn, :skipped, [:${step}], &[:${step} | &1])
`,
  )
  .join("")}
  @impl true
  def fetch(term, key), do: Map.fetch(term, key)
  @impl true
  def get_and_update(term, key, fun), do: Map.get_and_update(term, key, fun)
  @impl true
  def pop(term, key), do: Map.pop(term, key)
end
`;
}
