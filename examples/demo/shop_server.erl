%% The shop's only kind of server: a map behind a gen_server.
-module(shop_server).
-behaviour(gen_server).
-export([start/1, start_link/2, init/1, handle_call/3, handle_cast/2, handle_info/2]).

start(State) -> gen_server:start(?MODULE, State, []).
start_link(Name, State) -> gen_server:start_link({local, Name}, ?MODULE, State, []).

init(State) -> {ok, State}.

handle_call({price, Id}, _From, State) ->
    %% Every now and then a price has to be worked out anew.
    Price = case Id rem 50 of
        0 -> lists:sum(lists:sort([erlang:phash2({Id, N}, 1000) || N <- lists:seq(1, 2000)])) rem 100;
        _ -> erlang:phash2(Id, 100)
    end,
    {reply, Price, State};
handle_call({add, Item}, _From, State) ->
    {reply, ok, maps:update_with(items, fun(Items) -> [Item | Items] end, [Item], State)};
handle_call(items, _From, State) ->
    {reply, maps:get(items, State, []), State}.

handle_cast({reserve, _}, State) -> {noreply, maps:update_with(reserved, fun(N) -> N + 1 end, 1, State)};
handle_cast({sold, _, Total}, State) -> {noreply, maps:update_with(turnover, fun(N) -> N + Total end, Total, State)}.

handle_info(_, State) -> {noreply, State}.
