%% A small shop, so that the demo has something to watch: a catalogue (gen_server), a cart for each customer (gen_server under a
%% supervisor), checkouts in processes of their own. Some checkouts fail, as in life.
-module(shop).
-behaviour(supervisor).
-export([start/1, init/1, start_server/2, customer/1, checkout/2]).

start(Customers) ->
    {ok, Sup} = supervisor:start_link({local, shop_sup}, ?MODULE, []),
    unlink(Sup),
    [spawn(?MODULE, customer, [N]) || N <- lists:seq(1, Customers)],
    ok.

init([]) ->
    Servers = [#{id => catalogue, start => {?MODULE, start_server, [shop_catalogue, #{}]}},
               #{id => stock, start => {?MODULE, start_server, [shop_stock, #{}]}}],
    {ok, {#{strategy => one_for_one, intensity => 1000, period => 1}, Servers}}.

start_server(Name, State) ->
    shop_server:start_link(Name, State).

customer(N) ->
    {ok, Cart} = shop_server:start(#{customer => N}),
    shop(N, Cart, 5 + rand:uniform(15)),
    customer(N).

shop(_N, Cart, 0) ->
    {_, Ref} = spawn_monitor(?MODULE, checkout, [Cart, rand:uniform(20)]),
    receive {'DOWN', Ref, process, _, _} -> gen_server:stop(Cart) end;
shop(N, Cart, Steps) ->
    Price = gen_server:call(shop_catalogue, {price, rand:uniform(500)}),
    ok = gen_server:call(Cart, {add, {item, Steps, Price, lists:duplicate(20, Price)}}),
    gen_server:cast(shop_stock, {reserve, N}),
    timer:sleep(rand:uniform(8)),
    shop(N, Cart, Steps - 1).

checkout(_Cart, 1) -> exit({payment_declined, insufficient_funds});
checkout(Cart, _) ->
    Items = gen_server:call(Cart, items),
    Total = lists:sum([P || {item, _, P, _} <- Items]),
    gen_server:cast(shop_stock, {sold, length(Items), Total}).
