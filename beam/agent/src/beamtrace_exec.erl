%% Runs one call for the client and answers it directly (docs/agent-protocol.md, `{call, …}`). The holder watches the time.
-module(beamtrace_exec).

-export([start/6, init/6]).

-spec start(pid(), pid(), integer(), module(), atom(), [term()]) -> {pid(), reference()}.
start(Holder, Client, Id, M, F, Args) ->
    spawn_opt(?MODULE, init, [Holder, Client, Id, M, F, Args], [monitor]).

-spec init(pid(), pid(), integer(), module(), atom(), [term()]) -> ok.
init(_Holder, Client, Id, M, F, Args) ->
    %% No trace, of any session, sees this process.
    process_flag(sensitive, true),
    beamtrace_runtime:hide(self()),
    Result =
        try apply(M, F, Args) of
            Value -> {return, Value}
        catch
            throw:Thrown -> {throw, Thrown};
            exit:Reason -> {exit, Reason};
            error:Reason:Stack -> {error, Reason, Stack}
        end,
    %% May be suspended by a full connection: only this process waits.
    _ = erlang:send(Client, {beamtrace_reply, Id, {ok, Result}}, [noconnect]),
    ok.
