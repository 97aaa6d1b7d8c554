%% The TypeScript transformer as a port program: one `node` for the whole build, asked by any process of the build tool, several modules
%% at a time. What only a BEAM can do it asks back, and gets from this one (`beamtrace_compiler`, whose code it brings along).
%% Ends by itself when nobody has asked for a while, and with the VM.
-module(beamtrace_port).
-behaviour(gen_server).

-export([ask/2, stop/0]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([program/0, problem/0]).

%% `node` (a name to be found in the path, or a file) and the command line's script.
-type program() :: #{node := string(), cli := file:filename()}.
-type problem() :: #{code := binary(), message := binary(), module => binary(), file => binary(), line => non_neg_integer()}.

-record(state, {
    port :: port() | undefined,
    next = 0 :: non_neg_integer(),
    waiting = #{} :: #{non_neg_integer() => gen_server:from()},
    compiling = #{} :: #{reference() => non_neg_integer()},
    ready = false :: boolean(),
    %% Requests that came before the other side said hello.
    early = [] :: [{gen_server:from(), term()}]
}).

-define(IDLE_MS, 2000).
-define(HELLO, 0).
-define(PROTOCOL, 1).

%% Sends a request and waits for its answer; starts the program when it isn't running.
-spec ask(program(), term()) -> {ok, map()} | {error, problem()}.
ask(Program, Request) ->
    case start(Program) of
        {ok, Pid} ->
            try
                gen_server:call(Pid, {ask, Request}, infinity)
            catch
                %% It ended for want of work at this very moment.
                exit:{Gone, _} when Gone =:= noproc; Gone =:= normal ->
                    ask(Program, Request);
                exit:{Reason, _} ->
                    problem("the transformer ended: ~0tp", [Reason])
            end;
        {error, Problem} ->
            {error, Problem}
    end.

%% Ends the program, if it runs.
-spec stop() -> ok.
stop() ->
    case whereis(?MODULE) of
        undefined -> ok;
        Pid -> try gen_server:stop(Pid) catch exit:_ -> ok end
    end.

start(Program) ->
    case whereis(?MODULE) of
        undefined -> start_program(Program);
        Pid -> {ok, Pid}
    end.

start_program(#{node := Node, cli := Cli} = Program) ->
    case {os:find_executable(Node), filelib:is_regular(Cli)} of
        {false, _} ->
            problem("BT_NODE_MISSING", "there is no program ~ts: install Node.js 20 or later, or say where it is by the option node", [Node]);
        {_, false} ->
            problem("BT_NODE_MISSING", "there is no ~ts: is the package beamtrace installed (npm install)?", [Cli]);
        {Executable, true} ->
            %% Without a link: it serves whoever asks and does not end with the first of them.
            case gen_server:start({local, ?MODULE}, ?MODULE, Program#{node := Executable}, []) of
                {ok, Pid} -> {ok, Pid};
                {error, {already_started, Pid}} -> {ok, Pid};
                {error, Reason} -> problem("node could not be started: ~0tp", [Reason])
            end
    end.

problem(Format, Arguments) ->
    problem("BT_INTERNAL", Format, Arguments).

problem(Code, Format, Arguments) ->
    {error, #{
        code => list_to_binary(Code),
        message => unicode:characters_to_binary(io_lib:format(Format, Arguments))
    }}.

-spec init(program()) -> {ok, #state{}, {continue, hello}}.
init(#{node := Node, cli := Cli}) ->
    process_flag(trap_exit, true),
    Port = open_port({spawn_executable, Node}, [{args, [Cli, "port"]}, {packet, 4}, binary, use_stdio, exit_status]),
    {ok, #state{port = Port}, {continue, hello}}.

-spec handle_continue(hello, #state{}) -> {noreply, #state{}}.
handle_continue(hello, #state{port = Port} = State) ->
    send(Port, {?HELLO, {hello, ?PROTOCOL}}),
    {noreply, State#state{next = ?HELLO + 1}}.

-spec handle_call({ask, term()}, gen_server:from(), #state{}) -> {noreply, #state{}}.
handle_call({ask, Request}, From, #state{ready = false, early = Early} = State) ->
    {noreply, State#state{early = [{From, Request} | Early]}};
handle_call({ask, Request}, From, State) ->
    {noreply, sent(From, Request, State)}.

-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, timeout()} | {stop, term(), #state{}}.
handle_info({Port, {data, Data}}, #state{port = Port} = State) ->
    received(binary_to_term(Data), State);
handle_info({Port, {exit_status, Status}}, #state{port = Port} = State) ->
    ended(io_lib:format("the transformer ended with code ~b", [Status]), State);
handle_info({compiled, N, Answer}, #state{port = Port} = State) ->
    send(Port, {compiled, N, Answer}),
    {noreply, State};
handle_info({'DOWN', Ref, process, _, Reason}, #state{compiling = Compiling, port = Port} = State) ->
    case maps:take(Ref, Compiling) of
        {N, Rest} when Reason =/= normal ->
            send(Port, {compiled, N, {error, unicode:characters_to_binary(io_lib:format("~0tP", [Reason, 20]))}}),
            idle(State#state{compiling = Rest});
        {_, Rest} ->
            idle(State#state{compiling = Rest});
        error ->
            idle(State)
    end;
handle_info(timeout, #state{waiting = Waiting, compiling = Compiling} = State) when Waiting =:= #{}, Compiling =:= #{} ->
    {stop, normal, State};
handle_info(_, State) ->
    idle(State).

-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{port = Port}) ->
    case erlang:port_info(Port) of
        undefined -> ok;
        _ -> port_close(Port)
    end,
    ok.

received({?HELLO, {ok, #{compiler := Code}}}, #state{ready = false, early = Early} = State) ->
    case code:load_binary(beamtrace_compiler, "beamtrace_compiler.beam", Code) of
        {module, beamtrace_compiler} ->
            Ready = State#state{ready = true, early = []},
            idle(lists:foldr(fun({From, Request}, S) -> sent(From, Request, S) end, Ready, Early));
        {error, Reason} ->
            ended(io_lib:format("its compiler can't be loaded: ~0tp", [Reason]), State)
    end;
received({?HELLO, {error, #{message := Message}}}, State) ->
    ended(Message, State);
received({compile, N, Request}, #state{compiling = Compiling} = State) ->
    Self = self(),
    {_, Ref} = spawn_opt(
        fun() -> Self ! {compiled, N, beamtrace_compiler:answer(Request, Self)} end, [monitor, {min_heap_size, 100000}]
    ),
    {noreply, State#state{compiling = Compiling#{Ref => N}}};
received({fatal, #{message := Message}}, State) ->
    ended(Message, State);
received({Id, Answer}, #state{waiting = Waiting} = State) ->
    case maps:take(Id, Waiting) of
        {From, Rest} ->
            gen_server:reply(From, Answer),
            idle(State#state{waiting = Rest});
        error ->
            idle(State)
    end.

sent(From, Request, #state{port = Port, next = Id, waiting = Waiting} = State) ->
    send(Port, {Id, Request}),
    State#state{next = Id + 1, waiting = Waiting#{Id => From}}.

%% The port may have ended a moment ago; its exit status is on its way then.
send(Port, Term) ->
    try
        port_command(Port, term_to_binary(Term, [{minor_version, 2}]))
    catch
        error:badarg -> true
    end.

ended(Why, #state{waiting = Waiting, early = Early} = State) ->
    Answer = problem("~ts", [Why]),
    _ = [gen_server:reply(From, Answer) || From <- maps:values(Waiting)],
    _ = [gen_server:reply(From, Answer) || {From, _} <- Early],
    {stop, normal, State#state{waiting = #{}, early = []}}.

idle(#state{waiting = Waiting, compiling = Compiling, ready = true} = State) when Waiting =:= #{}, Compiling =:= #{} ->
    {noreply, State, ?IDLE_MS};
idle(State) ->
    {noreply, State}.
