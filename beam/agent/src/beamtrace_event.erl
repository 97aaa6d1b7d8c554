%% From the VM's trace tuples to the events of the wire (docs/agent-protocol.md, "Batches").
%% one/7, two/8 and three/9 take the data elements that stand between tag and stamp; trace tuples are not self-describing,
%% so the caller, who knows which flags are set, has taken scheduler id and stamp off. 0: a kind that nobody wants.
-module(beamtrace_event).

-export([one/7, two/8, three/9, unknown/5, kind/2, call_kind/1, initial_call/1, contents_bytes/1]).

-include("beamtrace_schema.hrl").

-type mode() :: none | shape | {bytes, pos_integer(), beamtrace_trim:redact()}.
-type event() :: tuple().
-export_type([mode/0, event/0]).

-define(WANTED(Kind, Mask, Event),
    case (Mask) band (1 bsl (Kind)) of
        0 -> 0;
        _ -> Event
    end
).
-define(ARITY_MAX, 255).
-define(UNKNOWN_BYTES, 1024).

%% How many bytes of contents an event bears: they stand at its end.
-spec contents_bytes(event()) -> non_neg_integer().
contents_bytes(Event) ->
    case element(tuple_size(Event), Event) of
        Contents when is_binary(Contents) -> byte_size(Contents);
        _ -> 0
    end.

%% `X` is the scheduler id, already shifted by 8, or 0.
-spec one(atom(), pid() | port(), term(), integer(), non_neg_integer(), non_neg_integer(), mode()) -> event() | 0.
one('receive', P, Msg, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_RECEIVE, Mask, content(?KIND_RECEIVE bor X, P, Msg, Dt, Mode));
%% What instrumented code tells (docs/transform.md).
one(call, P, {beamtrace_rt, entered, [Id, M, S, Args]}, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_FUNCTION_ENTRY, Mask, entered(?KIND_FUNCTION_ENTRY bor X, P, {Id, M, S}, Args, Dt, Mode));
one(call, P, {beamtrace_rt, left, [Id, M, S, Value]}, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_FUNCTION_RETURN, Mask, left(?KIND_FUNCTION_RETURN bor X, P, {Id, M, S}, Value, Dt, Mode));
one(call, P, {beamtrace_rt, tail_called, [Id, M, S]}, Dt, X, Mask, _) ->
    ?WANTED(?KIND_FUNCTION_TAIL_CALL, Mask, {?KIND_FUNCTION_TAIL_CALL bor X, Dt, P, Id, M, S});
one(call, P, {beamtrace_rt, raised, [Id, M, S, Class, Reason, _Stack]}, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_FUNCTION_EXCEPTION, Mask, frame_raised(?KIND_FUNCTION_EXCEPTION bor X, P, {Id, M, S, Class}, Reason, Dt, Mode));
one(call, P, MFA, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_CALL, Mask, call(?KIND_CALL bor X, P, MFA, 0, Dt, Mode));
one(in, P, MFA, Dt, X, Mask, _) when is_pid(P) ->
    ?WANTED(?KIND_IN, Mask, mfa(?KIND_IN bor X, P, MFA, Dt));
one(out, P, MFA, Dt, X, Mask, _) when is_pid(P) ->
    ?WANTED(?KIND_OUT, Mask, mfa(?KIND_OUT bor X, P, MFA, Dt));
one(return_to, P, MFA, Dt, X, Mask, _) ->
    ?WANTED(?KIND_RETURN_TO, Mask, mfa(?KIND_RETURN_TO bor X, P, MFA, Dt));
one(in, P, Op, Dt, X, Mask, _) ->
    ?WANTED(?KIND_PORT_IN, Mask, {?KIND_PORT_IN bor X, Dt, P, Op});
one(out, P, Op, Dt, X, Mask, _) ->
    ?WANTED(?KIND_PORT_OUT, Mask, {?KIND_PORT_OUT bor X, Dt, P, Op});
one(exit, P, Reason, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_EXIT, Mask, content(?KIND_EXIT bor X, P, Reason, Dt, Mode));
one(closed, P, Reason, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_CLOSED, Mask, content(?KIND_CLOSED bor X, P, Reason, Dt, Mode));
one(Tag, P, D1, Dt, X, Mask, _) ->
    case kind(Tag, P) of
        ?KIND_UNKNOWN ->
            ?WANTED(?KIND_UNKNOWN, Mask, unknown({trace_ts, P, Tag, D1}, P, Dt, X, Tag));
        Kind ->
            ?WANTED(Kind, Mask, plain(Kind, X, P, D1, Dt))
    end.

%% Tags with two data elements, and tags of one/7 with what the match spec said.
-spec two(atom(), pid() | port(), term(), term(), integer(), non_neg_integer(), non_neg_integer(), mode()) ->
    event() | 0.
two(send, P, Msg, To, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_SEND, Mask, send(?KIND_SEND bor X, P, Msg, To, Dt, Mode));
two(call, P, MFA, Caller, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_CALL, Mask, call(?KIND_CALL bor X, P, MFA, caller(Caller), Dt, Mode));
two(return_from, P, {M, F, A}, Value, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_RETURN_FROM, Mask, returned(?KIND_RETURN_FROM bor X, P, M, F, A, Value, Dt, Mode));
two(exception_from, P, {M, F, A}, {Class, Value}, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_EXCEPTION_FROM, Mask, raised(?KIND_EXCEPTION_FROM bor X, P, {M, F, A}, Class, Value, Dt, Mode));
two(spawn, P, Other, MFA, Dt, X, Mask, _) ->
    ?WANTED(?KIND_SPAWN, Mask, spawned(?KIND_SPAWN bor X, P, Other, MFA, Dt));
two(spawned, P, Other, MFA, Dt, X, Mask, _) ->
    ?WANTED(?KIND_SPAWNED, Mask, spawned(?KIND_SPAWNED bor X, P, Other, MFA, Dt));
two('receive', P, Msg, _Said, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_RECEIVE, Mask, content(?KIND_RECEIVE bor X, P, Msg, Dt, Mode));
two(send_to_non_existing_process, P, Msg, To, Dt, X, Mask, Mode) ->
    Kind = ?KIND_SEND_TO_NON_EXISTING_PROCESS,
    ?WANTED(Kind, Mask, send(Kind bor X, P, Msg, To, Dt, Mode));
two(open, P, Other, Name, Dt, X, Mask, _) when is_atom(Name) ->
    ?WANTED(?KIND_OPEN, Mask, {?KIND_OPEN bor X, Dt, P, Other, Name});
two(Tag, P, D1, D2, Dt, X, Mask, _) ->
    ?WANTED(?KIND_UNKNOWN, Mask, unknown({trace_ts, P, Tag, D1, D2}, P, Dt, X, Tag)).

%% Sends with what the match spec said.
-spec three(
    atom(), pid() | port(), term(), term(), term(), integer(), non_neg_integer(), non_neg_integer(), mode()
) -> event() | 0.
three(send, P, Msg, To, _Said, Dt, X, Mask, Mode) ->
    ?WANTED(?KIND_SEND, Mask, send(?KIND_SEND bor X, P, Msg, To, Dt, Mode));
three(send_to_non_existing_process, P, Msg, To, _Said, Dt, X, Mask, Mode) ->
    Kind = ?KIND_SEND_TO_NON_EXISTING_PROCESS,
    ?WANTED(Kind, Mask, send(Kind bor X, P, Msg, To, Dt, Mode));
three(Tag, P, D1, D2, D3, Dt, X, Mask, _) ->
    ?WANTED(?KIND_UNKNOWN, Mask, unknown({trace_ts, P, Tag, D1, D2, D3}, P, Dt, X, Tag)).

%% A trace tuple that this agent does not know.
-spec unknown(tuple(), pid() | port() | 0, integer(), non_neg_integer(), term()) -> event().
unknown(Tuple, P, Dt, X, Tag) ->
    Payload = beamtrace_trim:encode(Tuple, ?UNKNOWN_BYTES, #{}),
    {?KIND_UNKNOWN bor X, Dt, P, atom_or_0(Tag), Payload}.

%% The kind of a call message by its function.
-spec call_kind(term()) -> non_neg_integer().
call_kind({beamtrace_rt, entered, _}) -> ?KIND_FUNCTION_ENTRY;
call_kind({beamtrace_rt, left, _}) -> ?KIND_FUNCTION_RETURN;
call_kind({beamtrace_rt, tail_called, _}) -> ?KIND_FUNCTION_TAIL_CALL;
call_kind({beamtrace_rt, raised, _}) -> ?KIND_FUNCTION_EXCEPTION;
call_kind(_) -> ?KIND_CALL.

%% The kind of a trace tag.
-spec kind(atom(), pid() | port()) -> non_neg_integer().
kind(in, P) when is_port(P) -> ?KIND_PORT_IN;
kind(out, P) when is_port(P) -> ?KIND_PORT_OUT;
kind(Tag, _) ->
    case Tag of
        send -> ?KIND_SEND;
        'receive' -> ?KIND_RECEIVE;
        call -> ?KIND_CALL;
        return_from -> ?KIND_RETURN_FROM;
        exception_from -> ?KIND_EXCEPTION_FROM;
        return_to -> ?KIND_RETURN_TO;
        spawn -> ?KIND_SPAWN;
        spawned -> ?KIND_SPAWNED;
        exit -> ?KIND_EXIT;
        in -> ?KIND_IN;
        out -> ?KIND_OUT;
        send_to_non_existing_process -> ?KIND_SEND_TO_NON_EXISTING_PROCESS;
        link -> ?KIND_LINK;
        unlink -> ?KIND_UNLINK;
        getting_linked -> ?KIND_GETTING_LINKED;
        getting_unlinked -> ?KIND_GETTING_UNLINKED;
        register -> ?KIND_REGISTER;
        unregister -> ?KIND_UNREGISTER;
        in_exiting -> ?KIND_IN_EXITING;
        out_exiting -> ?KIND_OUT_EXITING;
        out_exited -> ?KIND_OUT_EXITED;
        gc_minor_start -> ?KIND_GC_MINOR_START;
        gc_minor_end -> ?KIND_GC_MINOR_END;
        gc_major_start -> ?KIND_GC_MAJOR_START;
        gc_major_end -> ?KIND_GC_MAJOR_END;
        gc_max_heap_size -> ?KIND_GC_MAX_HEAP_SIZE;
        open -> ?KIND_OPEN;
        closed -> ?KIND_CLOSED;
        _ -> ?KIND_UNKNOWN
    end.

plain(Kind, X, P, Info, Dt) when Kind >= ?KIND_GC_MINOR_START, Kind =< ?KIND_GC_MAX_HEAP_SIZE ->
    gc(Kind bor X, P, Info, Dt);
plain(Kind, X, P, MFA, Dt) when Kind >= ?KIND_IN, Kind =< ?KIND_OUT_EXITED ->
    mfa(Kind bor X, P, MFA, Dt);
plain(Kind, X, P, D1, Dt) ->
    {Kind bor X, Dt, P, D1}.

content(K, P, Term, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Term),
    {K, Dt, P, Shape, Tag1, Tag2};
content(K, P, _, Dt, none) ->
    {K, Dt, P, 0, 0, 0};
content(K, P, Term, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Term),
    {K, Dt, P, Shape, Tag1, Tag2, beamtrace_trim:encode(Term, Max, Redact)}.

send(K, P, Msg, To, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Msg),
    {K, Dt, P, To, Shape, Tag1, Tag2};
send(K, P, _, To, Dt, none) ->
    {K, Dt, P, To, 0, 0, 0};
send(K, P, Msg, To, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Msg),
    {K, Dt, P, To, Shape, Tag1, Tag2, beamtrace_trim:encode(Msg, Max, Redact)}.

call(K, P, {M, F, Arity}, Caller, Dt, _) when is_integer(Arity) ->
    {K, Dt, P, M, F, Arity, 0, 0, 0, Caller};
call(K, P, {M, F, Args}, Caller, Dt, none) ->
    {K, Dt, P, M, F, length(Args), 0, 0, 0, Caller};
call(K, P, {M, F, Args}, Caller, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_args(Args),
    {K, Dt, P, M, F, Shape bsr 4, Shape, Tag1, Tag2, Caller};
call(K, P, {M, F, Args}, Caller, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_args(Args),
    {K, Dt, P, M, F, Shape bsr 4, Shape, Tag1, Tag2, Caller, beamtrace_trim:encode(Args, Max, Redact)}.

entered(K, P, {Id, M, S}, Args, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_args(Args),
    {K, Dt, P, Id, M, S, Shape, Tag1, Tag2};
entered(K, P, {Id, M, S}, _, Dt, none) ->
    {K, Dt, P, Id, M, S, 0, 0, 0};
entered(K, P, {Id, M, S}, Args, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_args(Args),
    {K, Dt, P, Id, M, S, Shape, Tag1, Tag2, beamtrace_trim:encode(Args, Max, Redact)}.

left(K, P, {Id, M, S}, Value, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, Id, M, S, Shape, Tag1, Tag2};
left(K, P, {Id, M, S}, _, Dt, none) ->
    {K, Dt, P, Id, M, S, 0, 0, 0};
left(K, P, {Id, M, S}, Value, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, Id, M, S, Shape, Tag1, Tag2, beamtrace_trim:encode(Value, Max, Redact)}.

frame_raised(K, P, {Id, M, S, Class}, Value, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, Id, M, S, Class, Shape, Tag1, Tag2};
frame_raised(K, P, {Id, M, S, Class}, _, Dt, none) ->
    {K, Dt, P, Id, M, S, Class, 0, 0, 0};
frame_raised(K, P, {Id, M, S, Class}, Value, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, Id, M, S, Class, Shape, Tag1, Tag2, beamtrace_trim:encode(Value, Max, Redact)}.

returned(K, P, M, F, A, Value, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, M, F, A, Shape, Tag1, Tag2};
returned(K, P, M, F, A, _, Dt, none) ->
    {K, Dt, P, M, F, A, 0, 0, 0};
returned(K, P, M, F, A, Value, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, M, F, A, Shape, Tag1, Tag2, beamtrace_trim:encode(Value, Max, Redact)}.

raised(K, P, {M, F, A}, Class, _, Dt, none) ->
    {K, Dt, P, M, F, A, Class, 0, 0, 0};
raised(K, P, {M, F, A}, Class, Value, Dt, shape) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, M, F, A, Class, Shape, Tag1, Tag2};
raised(K, P, {M, F, A}, Class, Value, Dt, {bytes, Max, Redact}) ->
    {Shape, Tag1, Tag2} = beamtrace_shape:of_term(Value),
    {K, Dt, P, M, F, A, Class, Shape, Tag1, Tag2, beamtrace_trim:encode(Value, Max, Redact)}.

mfa(K, P, {M, F, A}, Dt) -> {K, Dt, P, M, F, A};
mfa(K, P, _, Dt) -> {K, Dt, P, 0}.

spawned(K, P, Other, {M, F, Args}, Dt) ->
    {IM, IF, IA} = initial_call({M, F, Args}),
    {K, Dt, P, Other, M, F, arity(Args, 0), IM, IF, IA}.

%% What a process was started for, where the spawned function is only a wrapper.
-spec initial_call({module(), atom(), term()}) -> {module() | 0, atom() | 0, arity() | 0}.
initial_call({proc_lib, init_p, [_Parent, _Ancestors, Fun]}) when is_function(Fun) -> fun_name(Fun);
initial_call({proc_lib, init_p, [_Parent, _Ancestors, M, F, Args]}) -> behaviour(M, F, Args);
initial_call({erlang, apply, [Fun, _]}) when is_function(Fun) -> fun_name(Fun);
initial_call({erlang, apply, [M, F, Args]}) when is_atom(M), is_atom(F) -> {M, F, arity(Args, 0)};
initial_call(_) -> {0, 0, 0}.

behaviour(gen, init_it, [gen_server, _, _, supervisor, {_, Module, _} | _]) when is_atom(Module) -> {Module, init, 1};
behaviour(gen, init_it, [gen_server, _, _, _, supervisor, {_, Module, _} | _]) when is_atom(Module) ->
    {Module, init, 1};
behaviour(gen, init_it, [_, _, _, Module, _, _]) when is_atom(Module) -> {Module, init, 1};
behaviour(gen, init_it, [_, _, _, _, Module, _, _]) when is_atom(Module) -> {Module, init, 1};
behaviour(M, F, Args) when is_atom(M), is_atom(F) -> {M, F, arity(Args, 0)};
behaviour(_, _, _) -> {0, 0, 0}.

fun_name(Fun) ->
    {module, Module} = erlang:fun_info(Fun, module),
    {arity, Arity} = erlang:fun_info(Fun, arity),
    case erlang:fun_info(Fun, name) of
        {name, Name} when is_atom(Name) -> {Module, Name, Arity};
        {name, _} -> {0, 0, 0}
    end.

arity([_ | Rest], N) when N < ?ARITY_MAX -> arity(Rest, N + 1);
arity([], N) -> N;
arity([_ | _], N) -> N;
arity(_, _) -> 0.

caller({M, F, A}) when is_atom(M), is_atom(F), is_integer(A) -> {M, F, A};
caller(undefined) -> undefined;
caller(_) -> 0.

%% The order in which the VM lists the values has been the same since OTP 19; any other order takes the slow way.
gc(K, P, Info, Dt) ->
    case Info of
        [
            {wordsize, W},
            {old_heap_block_size, OHB},
            {heap_block_size, HB},
            {mbuf_size, MB},
            {recent_size, R},
            {stack_size, S},
            {old_heap_size, OH},
            {heap_size, H},
            {bin_vheap_size, BV},
            {bin_vheap_block_size, BVB},
            {bin_old_vheap_size, BOV},
            {bin_old_vheap_block_size, BOVB}
        ] ->
            {K, Dt, P, W, H, HB, OH, OHB, S, R, MB, BV, BOV, BVB, BOVB};
        _ ->
            list_to_tuple([K, Dt, P | [proplists:get_value(Key, Info, 0) || Key <- ?GC_FIELDS]])
    end.

atom_or_0(T) when is_atom(T) -> T;
atom_or_0(_) -> 0.
