# The HTTP server of the benchmarks: a small shop on cowboy, with what a request of an Elixir application usually meets. A router, ETS (products),
# a GenServer (stock), a supervised task per request (what goes with it), EEx pages and JSON.

defmodule BeamtraceBench.Shop do
  @moduledoc false
  use Application

  @application :beamtrace_bench_shop
  @listener :beamtrace_bench_shop_http

  @doc "Starts the application on a port of the loopback interface."
  def start(port) when is_integer(port) do
    specification = [
      description: 'shop of the benchmarks',
      vsn: '1',
      modules: [],
      registered: [],
      applications: [:kernel, :stdlib, :elixir, :eex, :cowboy, :jsx],
      mod: {__MODULE__, port}
    ]

    :ok = :application.load({:application, @application, specification})
    {:ok, _} = Application.ensure_all_started(@application)
    :ok
  end

  @impl true
  def start(_type, port) do
    children = [
      BeamtraceBench.Shop.Products,
      BeamtraceBench.Shop.Stock,
      {Task.Supervisor, name: BeamtraceBench.Shop.Tasks},
      %{id: @listener, start: {__MODULE__, :listen, [port]}, type: :supervisor}
    ]

    Supervisor.start_link(children, strategy: :one_for_one)
  end

  @doc false
  def listen(port) do
    routes =
      :cowboy_router.compile([
        {'127.0.0.1',
         [
           {"/products/:id", BeamtraceBench.Shop.Page, []},
           {"/api/products/:id", BeamtraceBench.Shop.Api, []},
           {"/api/basket/:customer", BeamtraceBench.Shop.Basket, []}
         ]}
      ])

    :cowboy.start_clear(@listener, [ip: {127, 0, 0, 1}, port: port], %{
      env: %{dispatch: routes},
      max_keepalive: 1_000_000
    })
  end
end

defmodule BeamtraceBench.Shop.Products do
  @moduledoc false
  use GenServer

  @count 2_000
  @words ~w(red blue tall small <round> "bright" quiet heavy & light chair table lamp shelf)

  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  def count, do: @count

  def get(id) do
    [{^id, product}] = :ets.lookup(__MODULE__, id)
    product
  end

  @doc "The products that are shown beside one."
  def beside(id, count), do: for(n <- 1..count, do: get(rem(id + n * 37, @count)))

  @impl true
  def init(_) do
    :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    for id <- 0..(@count - 1), do: :ets.insert(__MODULE__, {id, product(id)})
    {:ok, []}
  end

  defp product(id) do
    words = for n <- 0..2, do: Enum.at(@words, rem(id * 7 + n * 5, length(@words)))

    %{
      id: id,
      name: Enum.join(words, " "),
      price: 100 + rem(id * 7919, 90_000),
      tags: Enum.uniq(words),
      text: String.duplicate(Enum.join(words, ", ") <> ". ", 4)
    }
  end
end

defmodule BeamtraceBench.Shop.Stock do
  @moduledoc false
  use GenServer

  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  def of(ids), do: GenServer.call(__MODULE__, {:of, ids})
  def take(id, count), do: GenServer.call(__MODULE__, {:take, id, count})

  @impl true
  def init(_), do: {:ok, Map.new(0..(BeamtraceBench.Shop.Products.count() - 1), &{&1, 1_000})}

  @impl true
  def handle_call({:of, ids}, _from, stock), do: {:reply, Map.take(stock, ids), stock}

  def handle_call({:take, id, count}, _from, stock) do
    # What runs out is delivered anew, so that a long run does not end up with an empty shop.
    left = if stock[id] < count, do: 1_000, else: stock[id] - count
    {:reply, left, Map.put(stock, id, left)}
  end
end

defmodule BeamtraceBench.Shop.Offers do
  @moduledoc false
  alias BeamtraceBench.Shop.{Products, Tasks}

  @doc "Starts the search for what goes with a product, in a task of its own."
  def search(product), do: Task.Supervisor.async_nolink(Tasks, fn -> find(product) end)

  defp find(product) do
    product.id
    |> Products.beside(60)
    |> Enum.map(fn other -> {score(product, other), other} end)
    |> Enum.sort_by(fn {score, other} -> {-score, other.id} end)
    |> Enum.take(5)
    |> Enum.map(fn {_, other} -> other end)
  end

  defp score(product, other) do
    shared = Enum.count(product.tags, &(&1 in other.tags))
    shared * 100 - div(abs(product.price - other.price), 1_000)
  end
end

defmodule BeamtraceBench.Shop.Page do
  @moduledoc false
  require EEx
  alias BeamtraceBench.Shop.{Offers, Products, Stock}

  EEx.function_from_string(
    :defp,
    :page,
    """
    <!doctype html><html><head><title><%= escape(product.name) %></title></head><body>
    <h1><%= escape(product.name) %></h1><p class="price"><%= price(product.price) %></p>
    <p><%= escape(product.text) %></p><p>In stock: <%= stock[product.id] %></p>
    <ul class="tags"><%= for tag <- product.tags do %><li><%= escape(tag) %></li><% end %></ul>
    <table><%= for other <- beside do %>
      <tr><td><a href="/products/<%= other.id %>"><%= escape(other.name) %></a></td><td><%= price(other.price) %></td><td><%= stock[other.id] %></td></tr>
    <% end %></table>
    <section><%= for offer <- offers do %><article><h2><%= escape(offer.name) %></h2><p><%= escape(offer.text) %></p></article><% end %></section>
    </body></html>
    """,
    [:product, :beside, :stock, :offers]
  )

  def init(request, state) do
    product = Products.get(String.to_integer(:cowboy_req.binding(:id, request)))
    search = Offers.search(product)
    beside = Products.beside(product.id, 20)
    stock = Stock.of([product.id | Enum.map(beside, & &1.id)])
    body = page(product, beside, stock, Task.await(search))
    {:ok, :cowboy_req.reply(200, %{"content-type" => "text/html; charset=utf-8"}, body, request), state}
  end

  defp price(cents), do: "#{div(cents, 100)}.#{cents |> rem(100) |> Integer.to_string() |> String.pad_leading(2, "0")}"

  defp escape(text), do: for(<<byte <- text>>, into: "", do: entity(byte))

  defp entity(?<), do: "&lt;"
  defp entity(?>), do: "&gt;"
  defp entity(?&), do: "&amp;"
  defp entity(?"), do: "&quot;"
  defp entity(byte), do: <<byte>>
end

defmodule BeamtraceBench.Shop.Api do
  @moduledoc false
  alias BeamtraceBench.Shop.{Offers, Products, Stock}

  def init(request, state) do
    product = Products.get(String.to_integer(:cowboy_req.binding(:id, request)))
    search = Offers.search(product)
    stock = Stock.of([product.id])
    body = :jsx.encode(%{product: product, stock: stock[product.id], offers: Task.await(search)})
    {:ok, :cowboy_req.reply(200, %{"content-type" => "application/json"}, body, request), state}
  end
end

defmodule BeamtraceBench.Shop.Basket do
  @moduledoc false
  alias BeamtraceBench.Shop.{Offers, Products, Stock}

  def init(request, state) do
    {:ok, json, request} = :cowboy_req.read_body(request)
    %{"items" => items} = :jsx.decode(json, [:return_maps])

    lines =
      for %{"id" => id, "count" => count} <- items do
        product = Products.get(id)
        %{id: id, count: count, price: product.price * count, left: Stock.take(id, count)}
      end

    offers = hd(items)["id"] |> Products.get() |> Offers.search() |> Task.await()
    total = lines |> Enum.map(& &1.price) |> Enum.sum()
    customer = :cowboy_req.binding(:customer, request)
    body = :jsx.encode(%{customer: customer, lines: lines, total: total, offers: offers})
    {:ok, :cowboy_req.reply(200, %{"content-type" => "application/json"}, body, request), state}
  end
end
