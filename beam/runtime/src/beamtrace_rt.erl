%% What instrumented code calls. Two builds of one source: without ON every function does nothing and `enter` answers 0, which
%% tells the instrumented function not to call again for this frame; with ON each frame gets an id and each event goes through a
%% function of its own (`entered`, `left` …) that does nothing either: it is where the tracers set their breakpoints, so that
%% limits, shapes, redaction and sampling are those of every other call trace. Nothing here may raise, block or send.
-module(beamtrace_rt).

-export([enter/2, enter/3, enter/4, enter/5, enter/6, enter/7, enter/8, enter_list/3]).
-export([leave/4, tail/3, exception/6]).

-type id() :: non_neg_integer().
-type site() :: non_neg_integer().
-export_type([id/0, site/0]).

-ifdef(ON).

-export([entered/4, left/4, tail_called/3, raised/6]).

-define(ENTER(Arguments), begin
    Id = erlang:unique_integer([positive]),
    _ = ?MODULE:entered(Id, M, S, Arguments),
    Id
end).

-spec entered(id(), module(), site(), [term()]) -> ok.
entered(_, _, _, _) -> ok.

-spec left(id(), module(), site(), term()) -> ok.
left(_, _, _, _) -> ok.

-spec tail_called(id(), module(), site()) -> ok.
tail_called(_, _, _) -> ok.

-spec raised(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
raised(_, _, _, _, _, _) -> ok.

-spec leave(id(), module(), site(), term()) -> ok.
leave(Id, M, S, Result) -> ?MODULE:left(Id, M, S, Result).

-spec tail(id(), module(), site()) -> ok.
tail(Id, M, S) -> ?MODULE:tail_called(Id, M, S).

-spec exception(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
exception(Id, M, S, Class, Reason, Stack) -> ?MODULE:raised(Id, M, S, Class, Reason, Stack).

-else.

-define(ENTER(Arguments), begin
    _ = {M, S, fun() -> Arguments end},
    0
end).

-spec leave(id(), module(), site(), term()) -> ok.
leave(_, _, _, _) -> ok.

-spec tail(id(), module(), site()) -> ok.
tail(_, _, _) -> ok.

-spec exception(id(), module(), site(), error | exit | throw, term(), [term()]) -> ok.
exception(_, _, _, _, _, _) -> ok.

-endif.

-spec enter(module(), site()) -> id().
enter(M, S) -> ?ENTER([]).

-spec enter(module(), site(), term()) -> id().
enter(M, S, A) -> ?ENTER([A]).

-spec enter(module(), site(), term(), term()) -> id().
enter(M, S, A, B) -> ?ENTER([A, B]).

-spec enter(module(), site(), term(), term(), term()) -> id().
enter(M, S, A, B, C) -> ?ENTER([A, B, C]).

-spec enter(module(), site(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D) -> ?ENTER([A, B, C, D]).

-spec enter(module(), site(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E) -> ?ENTER([A, B, C, D, E]).

-spec enter(module(), site(), term(), term(), term(), term(), term(), term()) -> id().
enter(M, S, A, B, C, D, E, F) -> ?ENTER([A, B, C, D, E, F]).

-spec enter_list(module(), site(), [term()]) -> id().
enter_list(M, S, Arguments) -> ?ENTER(Arguments).
